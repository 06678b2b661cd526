#include "harness/model/differentiable_decoder.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <cmath>

namespace kvc {
namespace {

at::Tensor normed(const at::Tensor& rows, const at::Tensor& weight, double eps) {
  const at::Tensor x = at_least_float(rows);
  return x * at::rsqrt(x.square().mean(-1, true) + eps) * at_least_float(weight);
}

// (N, n_old + N), true where a token does not see an entry of a streaming head.
at::Tensor outside_window(int64_t n_old, int64_t n, const StreamingMix& mix, at::Device device) {
  const at::Tensor entries = at::arange(n_old + n, at::TensorOptions(at::kLong).device(device)).unsqueeze(0);
  const at::Tensor tokens = at::arange(n_old, n_old + n, at::TensorOptions(at::kLong).device(device)).unsqueeze(1);
  return entries.ge(mix.n_sink).logical_and((tokens - entries).ge(mix.n_recent));
}

}  // namespace

at::Tensor tracked_by_autograd(const at::Tensor& tensor, at::ScalarType dtype) {
  if (!tensor.defined()) return tensor;
  if (tensor.scalar_type() != dtype) return tensor.to(dtype).clone();
  if (!tensor.is_inference()) return tensor;
  return at::from_blob(
      tensor.data_ptr(), tensor.sizes(), tensor.strides(), [tensor](void*) {}, tensor.options());
}

at::Tensor at_least_float(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? tensor : tensor.to(at::kFloat);
}

DifferentiableDecoder::DifferentiableDecoder(const Decoder& decoder, at::ScalarType dtype)
    : spec_(decoder.spec()),
      dtype_(dtype),
      weights_(decoder.weights()),
      rotary_(decoder.spec(), decoder.options().device()) {
  const c10::InferenceMode tracking(false);
  const bool tied = weights_.head.is_same(weights_.embedding);
  for (at::Tensor* weight : {&weights_.embedding, &weights_.final_norm}) *weight = tracked_by_autograd(*weight, dtype);
  weights_.head = tied ? weights_.embedding : tracked_by_autograd(weights_.head, dtype);
  for (LayerWeights& layer : weights_.layers) {
    for (at::Tensor* weight : {&layer.attention_norm, &layer.qkv, &layer.qkv_bias, &layer.q_norm, &layer.k_norm,
                               &layer.attention_output, &layer.attention_output_bias, &layer.feed_forward_norm,
                               &layer.gate_up, &layer.gate_up_bias, &layer.down, &layer.down_bias}) {
      *weight = tracked_by_autograd(*weight, dtype);
    }
  }
}

at::Tensor DifferentiableDecoder::embed(const std::vector<int64_t>& tokens) const {
  return weights_.embedding.index_select(0, at::tensor(tokens, at::kLong).to(weights_.embedding.device()));
}

at::Tensor DifferentiableDecoder::rotated(const at::Tensor& heads, const at::Tensor& norm,
                                          int64_t first_position) const {
  const at::Tensor x = norm.defined() ? normed(heads, norm, spec_.rms_norm_eps) : at_least_float(heads);
  const RotaryTables tables = rotary_.covering(first_position + heads.size(0));
  const auto rows = [&](const at::Tensor& table) {
    return tracked_by_autograd(table, at::kFloat)
        .narrow(0, first_position, heads.size(0))
        .unsqueeze(1)
        .to(x.scalar_type());
  };
  const at::Tensor cos = rows(tables.cos), sin = rows(tables.sin);
  const int64_t half = spec_.head_dim / 2;
  const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  return at::cat({first * cos - second * sin, second * cos + first * sin}, -1).to(dtype_);
}

at::Tensor DifferentiableDecoder::attend(const LayerWeights& weights, const at::Tensor& normed_hidden,
                                         const std::vector<HeadEntries>& heads, int64_t first_position,
                                         const StreamingMix* mix) const {
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
    at::Tensor logits = at_least_float(at::matmul(query, scale_to.t())) / std::sqrt(static_cast<double>(d));
    logits = logits.view({g, n, -1});
    at::Tensor old_logits = logits.narrow(2, 0, entries.keys.size(0));
    if (entries.bias.defined()) old_logits = old_logits + entries.bias.to(logits.scalar_type());
    const at::Tensor own_logits = logits.narrow(2, entries.keys.size(0), n).masked_fill(future, -INFINITY);
    const at::Tensor seen = at::cat({old_logits, own_logits}, 2),
                     values = at::cat({entries.values, new_values.select(1, h)});
    at::Tensor output = at::matmul(at::softmax(seen, -1).to(dtype_), values);
    if (mix != nullptr) {
      const at::Tensor far = outside_window(entries.keys.size(0), n, *mix, logits.device());
      const at::Tensor near = at::matmul(at::softmax(seen.masked_fill(far, -INFINITY), -1).to(dtype_), values);
      const at::Tensor gate = mix->gates.select(0, h).to(at_least_float(output).scalar_type());
      output = (gate * at_least_float(output) + (1 - gate) * at_least_float(near)).to(dtype_);
    }
    outputs.push_back(output.transpose(0, 1));  // (N, g, d)
  }
  return at::cat(outputs, 1).reshape({n, spec_.n_query_heads * d});
}

at::Tensor DifferentiableDecoder::run_layer(int64_t layer, const at::Tensor& hidden,
                                            const std::vector<HeadEntries>& heads, int64_t first_position,
                                            const StreamingMix* mix) const {
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  const double eps = spec_.rms_norm_eps;
  const at::Tensor attention =
      attend(weights, normed(hidden, weights.attention_norm, eps).to(dtype_), heads, first_position, mix);
  const at::Tensor middle = hidden + at::linear(attention, weights.attention_output, weights.attention_output_bias);
  const at::Tensor gate_up = at_least_float(
      at::linear(normed(middle, weights.feed_forward_norm, eps).to(dtype_), weights.gate_up, weights.gate_up_bias));
  const int64_t ffn = spec_.feed_forward_size;
  const at::Tensor inner = (at::silu(gate_up.narrow(1, 0, ffn)) * gate_up.narrow(1, ffn, ffn)).to(dtype_);
  return middle + at::linear(inner, weights.down, weights.down_bias);
}

at::Tensor DifferentiableDecoder::final_norm(const at::Tensor& hidden) const {
  return normed(hidden, weights_.final_norm, spec_.rms_norm_eps).to(dtype_);
}

}  // namespace kvc
