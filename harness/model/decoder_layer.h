// What a decoder layer does around its attention, and what is checked of tokens and positions: shared by the forward
// pass (decoder.h) and by steps of decoding (decode_step.h).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "harness/model/decoder.h"
#include "harness/model/elementwise.h"
#include "harness/model/linear.h"

namespace kvc {

// Throw Error(kData): a token outside the vocabulary; a position outside [0, max_positions).
void check_tokens(const std::vector<int64_t>& tokens, int64_t vocab_size);
void check_positions(const std::vector<int64_t>& positions, int64_t max_positions);

// hidden (N, hidden) through one layer. attend(normed) gives the heads' outputs, (N, Hq d).
template <class Attend>
at::Tensor layer_around(const Attend& attend, const LayerWeights& weights, double eps, const at::Tensor& hidden) {
  const at::Tensor attention = attend(rms_norm(hidden, weights.attention_norm, eps));
  const at::Tensor mixed = project(attention, weights.attention_output, weights.attention_output_bias);
  const auto [middle, middle_normed] = add_rms_norm(hidden, mixed, weights.feed_forward_norm, eps);
  const at::Tensor inner = silu_mul(project(middle_normed, weights.gate_up, weights.gate_up_bias));
  // On a GPU the product adds: one launch less, one rounding instead of two.
  if (inner.is_cuda() && !weights.down_bias.defined()) return at::addmm(middle, inner, weights.down.t());
  at::Tensor update = project(inner, weights.down, weights.down_bias);
  return update.add_(middle);
}

// The values' part of q, k, v side by side: a view (N, Hkv, d).
inline at::Tensor values_of(const at::Tensor& qkv, const DecoderSpec& spec) {
  const int64_t width = spec.n_kv_heads * spec.head_dim;
  return qkv.narrow(1, qkv.size(1) - width, width).unflatten(1, {spec.n_kv_heads, spec.head_dim});
}

}  // namespace kvc
