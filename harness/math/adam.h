// Adam: gradient descent with a step size of its own for each parameter.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace kvc {

// Kingma and Ba, arXiv:1412.6980; beta 0.9 and 0.999, epsilon 1e-8.
class Adam {
 public:
  explicit Adam(std::vector<at::Tensor> parameters);
  // Applies and clears the gradients.
  void step(double learning_rate);

  // For going on later: the moments in the parameters' order.
  const std::vector<at::Tensor>& means() const { return mean_; }
  const std::vector<at::Tensor>& squares() const { return square_; }
  void restore(std::vector<at::Tensor> means, std::vector<at::Tensor> squares, int64_t n_steps);

 private:
  std::vector<at::Tensor> parameters_, mean_, square_;
  int64_t n_steps_ = 0;
};

}  // namespace kvc
