#include "harness/math/adam.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <utility>

namespace kvc {

Adam::Adam(std::vector<at::Tensor> parameters) : parameters_(std::move(parameters)) {
  const c10::InferenceMode tracking(false);
  for (const at::Tensor& parameter : parameters_) {
    mean_.push_back(at::zeros_like(parameter.detach()));
    square_.push_back(at::zeros_like(parameter.detach()));
  }
}

void Adam::step(double learning_rate) {
  constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
  const c10::InferenceMode tracking(false);
  const c10::AutoGradMode off(false);
  ++n_steps_;
  const double correct1 = 1 - std::pow(kBeta1, n_steps_), correct2 = 1 - std::pow(kBeta2, n_steps_);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor gradient = parameters_[i].grad();
    if (!gradient.defined()) continue;
    mean_[i].mul_(kBeta1).add_(gradient, 1 - kBeta1);
    square_[i].mul_(kBeta2).addcmul_(gradient, gradient, 1 - kBeta2);
    parameters_[i].addcdiv_(mean_[i], (square_[i] / correct2).sqrt_().add_(kEpsilon), -learning_rate / correct1);
    gradient.zero_();
  }
}

void Adam::restore(std::vector<at::Tensor> means, std::vector<at::Tensor> squares, int64_t n_steps) {
  mean_ = std::move(means);
  square_ = std::move(squares);
  n_steps_ = n_steps;
}

}  // namespace kvc
