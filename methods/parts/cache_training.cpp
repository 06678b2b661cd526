#include "methods/parts/cache_training.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace kvc {
namespace {

constexpr int64_t kLogitRows = 128;  // of a vocabulary of 150,000: 77 MB in float32

// (Hkv len_h, ...) of the compactable entries of a layer.
template <class Pick>
at::Tensor between(const LayerKv& layer, const Compactable& compactable, const Pick& pick) {
  std::vector<at::Tensor> pieces;
  for (int64_t h = 0; h < layer.n_kv_heads(); ++h) {
    pieces.push_back(pick(h).narrow(0, compactable.prefix_len, compactable.source_len(layer.head_len(h))));
  }
  return at::cat(pieces);
}

}  // namespace

CacheTraining::CacheTraining(const Decoder& decoder, const KvCache& start, const Compactable& compactable,
                             at::ScalarType dtype)
    : decoder_(decoder, dtype), start_(start), compactable_(compactable) {
  const c10::InferenceMode tracking(false);
  const at::ScalarType exact = dtype == at::kDouble ? at::kDouble : at::kFloat;
  for (int64_t l = 0; l < start.n_layers(); ++l) {
    const LayerKv& layer = start.layer(l);
    parameters_.push_back(between(layer, compactable, [&](int64_t h) { return layer.head_keys(h); }));
    parameters_.push_back(between(layer, compactable, [&](int64_t h) { return layer.head_values(h); }));
  }
  for (at::Tensor& parameter : parameters_) parameter = parameter.to(exact).clone().detach().requires_grad_(true);
}

std::vector<HeadEntries> CacheTraining::heads(int64_t layer) const {
  const LayerKv& source = start_.layer(layer);
  const auto joined = [&](const at::Tensor& given, const at::Tensor& parameter, int64_t begin, int64_t trained) {
    const at::Tensor fixed = tracked_by_autograd(given, decoder_.dtype());
    return at::cat({fixed.narrow(0, 0, compactable_.prefix_len),
                    parameter.narrow(0, begin, trained).to(decoder_.dtype()),
                    fixed.narrow(0, fixed.size(0) - compactable_.suffix_len, compactable_.suffix_len)});
  };
  std::vector<HeadEntries> result;
  int64_t begin = 0;
  for (int64_t h = 0; h < source.n_kv_heads(); ++h) {
    const int64_t trained = compactable_.source_len(source.head_len(h));
    const auto at = static_cast<size_t>(2 * layer);
    const at::Tensor bias = source.bias.defined() ? tracked_by_autograd(source.head_bias(h), at::kFloat) : at::Tensor();
    result.push_back({joined(source.head_keys(h), parameters_[at], begin, trained),
                      joined(source.head_values(h), parameters_[at + 1], begin, trained), bias});
    begin += trained;
  }
  return result;
}

std::vector<at::Tensor> CacheTraining::states(const TrainingText& text) const {
  const c10::AutoGradMode off(false);
  std::vector<at::Tensor> list = {decoder_.embed(text.tokens)};
  for (int64_t l = 0; l < start_.n_layers(); ++l) {
    list.push_back(decoder_.run_layer(l, list.back(), heads(l), start_.next_position()));
  }
  return list;
}

// The gradient is that of the loss by `normed`: KL's by the logits is softmax(student) - softmax(teacher).
double CacheTraining::head_loss(const TrainingText& text, const at::Tensor& normed_hidden, at::Tensor* gradient) const {
  const c10::AutoGradMode off(false);
  const int64_t n = normed_hidden.size(0);
  double total = 0;
  if (gradient != nullptr) *gradient = at::empty_like(normed_hidden);
  for (int64_t first = 0; first < n; first += kLogitRows) {
    const int64_t rows = std::min(kLogitRows, n - first);
    const auto log_probabilities = [&](const at::Tensor& hidden) {
      const at::Tensor part = hidden.narrow(0, first, rows).to(decoder_.dtype());
      return at::log_softmax(at_least_float(at::matmul(part, decoder_.head().t())), -1);
    };
    const at::Tensor teacher = log_probabilities(text.teacher), student = log_probabilities(normed_hidden);
    total += (teacher.exp() * (teacher - student)).sum().item<double>();
    if (gradient == nullptr) continue;
    const at::Tensor by_logits = ((student.exp() - teacher.exp()) / static_cast<double>(n)).to(decoder_.dtype());
    gradient->narrow(0, first, rows).copy_(at::matmul(by_logits, decoder_.head()));
  }
  return total / static_cast<double>(n);
}

double CacheTraining::loss(const TrainingText& text) const {
  const c10::InferenceMode tracking(false);
  const c10::AutoGradMode off(false);
  return head_loss(text, decoder_.final_norm(states(text).back()), nullptr);
}

double CacheTraining::accumulate(const TrainingText& text, double weight) {
  const c10::InferenceMode tracking(false);
  std::vector<at::Tensor> inputs = states(text);
  const c10::AutoGradMode on(true);
  const auto leaf = [](const at::Tensor& tensor) { return tensor.detach().requires_grad_(true); };
  at::Tensor input = leaf(inputs.back()), gradient;
  const at::Tensor last = decoder_.final_norm(input);
  const double loss = head_loss(text, last.detach(), &gradient);
  last.backward(gradient * weight);
  for (int64_t l = start_.n_layers() - 1; l >= 0; --l) {
    gradient = input.grad();
    inputs.pop_back();
    input = l > 0 ? leaf(inputs.back()) : inputs.back();  // nothing is asked of the embedding
    decoder_.run_layer(l, input, heads(l), start_.next_position()).backward(gradient);
  }
  return loss;
}

KvCache CacheTraining::result() const {
  const c10::InferenceMode inference;
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < start_.n_layers(); ++l) {
    LayerKv layer = start_.layer(l);
    layer.keys = layer.keys.clone();
    layer.values = layer.values.clone();
    if (layer.bias.defined()) layer.bias = layer.bias.clone();
    int64_t begin = 0;
    for (int64_t h = 0; h < layer.n_kv_heads(); ++h) {
      const int64_t trained = compactable_.source_len(layer.head_len(h));
      const auto put = [&](const at::Tensor& to, const at::Tensor& parameter) {
        to.narrow(0, compactable_.prefix_len, trained).copy_(parameter.detach().narrow(0, begin, trained));
      };
      put(layer.head_keys(h), parameters_[static_cast<size_t>(2 * l)]);
      put(layer.head_values(h), parameters_[static_cast<size_t>(2 * l + 1)]);
      begin += trained;
    }
    layers.push_back(std::move(layer));
  }
  return {std::move(layers), start_.next_position()};
}

}  // namespace kvc
