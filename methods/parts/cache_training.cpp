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

// Autograd keeps no tensor that was made in InferenceMode: the same memory under another header, or a copy in `dtype`.
at::Tensor tracked(const at::Tensor& tensor, at::ScalarType dtype) {
  if (!tensor.defined()) return tensor;
  if (tensor.scalar_type() != dtype) return tensor.to(dtype).clone();
  if (!tensor.is_inference()) return tensor;
  return at::from_blob(
      tensor.data_ptr(), tensor.sizes(), tensor.strides(), [tensor](void*) {}, tensor.options());
}

// Between matrix products numbers are float32 at least.
at::Tensor wide(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? tensor : tensor.to(at::kFloat);
}

at::Tensor normed(const at::Tensor& rows, const at::Tensor& weight, double eps) {
  const at::Tensor x = wide(rows);
  return x * at::rsqrt(x.square().mean(-1, true) + eps) * wide(weight);
}

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

DifferentiableDecoder::DifferentiableDecoder(const Decoder& decoder, at::ScalarType dtype)
    : spec_(decoder.spec()),
      dtype_(dtype),
      weights_(decoder.weights()),
      rotary_(decoder.spec(), decoder.options().device()) {
  const c10::InferenceMode tracking(false);
  const bool tied = weights_.head.is_same(weights_.embedding);
  for (at::Tensor* weight : {&weights_.embedding, &weights_.final_norm}) *weight = tracked(*weight, dtype);
  weights_.head = tied ? weights_.embedding : tracked(weights_.head, dtype);
  for (LayerWeights& layer : weights_.layers) {
    for (at::Tensor* weight : {&layer.attention_norm, &layer.qkv, &layer.qkv_bias, &layer.q_norm, &layer.k_norm,
                               &layer.attention_output, &layer.attention_output_bias, &layer.feed_forward_norm,
                               &layer.gate_up, &layer.gate_up_bias, &layer.down, &layer.down_bias}) {
      *weight = tracked(*weight, dtype);
    }
  }
}

at::Tensor DifferentiableDecoder::embed(const std::vector<int64_t>& tokens) const {
  return weights_.embedding.index_select(0, at::tensor(tokens, at::kLong).to(weights_.embedding.device()));
}

at::Tensor DifferentiableDecoder::rotated(const at::Tensor& heads, const at::Tensor& norm,
                                          int64_t first_position) const {
  const at::Tensor x = norm.defined() ? normed(heads, norm, spec_.rms_norm_eps) : wide(heads);
  const RotaryTables tables = rotary_.covering(first_position + heads.size(0));
  const auto rows = [&](const at::Tensor& table) {
    return tracked(table, at::kFloat).narrow(0, first_position, heads.size(0)).unsqueeze(1).to(x.scalar_type());
  };
  const at::Tensor cos = rows(tables.cos), sin = rows(tables.sin);
  const int64_t half = spec_.head_dim / 2;
  const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  return at::cat({first * cos - second * sin, second * cos + first * sin}, -1).to(dtype_);
}

at::Tensor DifferentiableDecoder::attend(const LayerWeights& weights, const at::Tensor& normed_hidden,
                                         const std::vector<HeadEntries>& heads, int64_t first_position) const {
  const int64_t n = normed_hidden.size(0), g = spec_.group_size(), d = spec_.head_dim;
  const at::Tensor qkv =
      at::linear(normed_hidden, weights.qkv, weights.qkv_bias).view({n, spec_.n_query_heads + 2 * spec_.n_kv_heads, d});
  const at::Tensor queries = rotated(qkv.narrow(1, 0, spec_.n_query_heads), weights.q_norm, first_position);
  const at::Tensor new_keys =
      rotated(qkv.narrow(1, spec_.n_query_heads, spec_.n_kv_heads), weights.k_norm, first_position);
  const at::Tensor new_values = qkv.narrow(1, spec_.n_query_heads + spec_.n_kv_heads, spec_.n_kv_heads);
  const at::Tensor future = at::ones({n, n}, qkv.options().dtype(at::kBool)).triu(1);
  std::vector<at::Tensor> outputs;
  for (int64_t h = 0; h < spec_.n_kv_heads; ++h) {
    const HeadEntries& entries = heads[static_cast<size_t>(h)];
    const at::Tensor query = queries.narrow(1, h * g, g).transpose(0, 1).reshape({g * n, d});
    const at::Tensor scale_to = at::cat({entries.keys, new_keys.select(1, h)});
    at::Tensor logits = wide(at::matmul(query, scale_to.t())) / std::sqrt(static_cast<double>(d));
    logits = logits.view({g, n, -1});
    at::Tensor old_logits = logits.narrow(2, 0, entries.keys.size(0));
    if (entries.bias.defined()) old_logits = old_logits + entries.bias.to(logits.scalar_type());
    const at::Tensor own_logits = logits.narrow(2, entries.keys.size(0), n).masked_fill(future, -INFINITY);
    const at::Tensor weight = at::softmax(at::cat({old_logits, own_logits}, 2), -1).to(dtype_);
    const at::Tensor output = at::matmul(weight, at::cat({entries.values, new_values.select(1, h)}));
    outputs.push_back(output.transpose(0, 1));  // (N, g, d)
  }
  return at::cat(outputs, 1).reshape({n, spec_.n_query_heads * d});
}

at::Tensor DifferentiableDecoder::run_layer(int64_t layer, const at::Tensor& hidden,
                                            const std::vector<HeadEntries>& heads, int64_t first_position) const {
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  const double eps = spec_.rms_norm_eps;
  const at::Tensor attention =
      attend(weights, normed(hidden, weights.attention_norm, eps).to(dtype_), heads, first_position);
  const at::Tensor middle = hidden + at::linear(attention, weights.attention_output, weights.attention_output_bias);
  const at::Tensor gate_up = wide(
      at::linear(normed(middle, weights.feed_forward_norm, eps).to(dtype_), weights.gate_up, weights.gate_up_bias));
  const int64_t ffn = spec_.feed_forward_size;
  const at::Tensor inner = (at::silu(gate_up.narrow(1, 0, ffn)) * gate_up.narrow(1, ffn, ffn)).to(dtype_);
  return middle + at::linear(inner, weights.down, weights.down_bias);
}

at::Tensor DifferentiableDecoder::final_norm(const at::Tensor& hidden) const {
  return normed(hidden, weights_.final_norm, spec_.rms_norm_eps).to(dtype_);
}

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
    const at::Tensor fixed = tracked(given, decoder_.dtype());
    return at::cat({fixed.narrow(0, 0, compactable_.prefix_len),
                    parameter.narrow(0, begin, trained).to(decoder_.dtype()),
                    fixed.narrow(0, fixed.size(0) - compactable_.suffix_len, compactable_.suffix_len)});
  };
  std::vector<HeadEntries> result;
  int64_t begin = 0;
  for (int64_t h = 0; h < source.n_kv_heads(); ++h) {
    const int64_t trained = compactable_.source_len(source.head_len(h));
    const auto at = static_cast<size_t>(2 * layer);
    const at::Tensor bias = source.bias.defined() ? tracked(source.head_bias(h), at::kFloat) : at::Tensor();
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
      return at::log_softmax(wide(at::matmul(part, decoder_.head().t())), -1);
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

}  // namespace kvc
