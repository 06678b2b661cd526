// The work between the matrix products of a decoder layer, each in one pass over memory: this project's own loops on
// the CPU, its own kernels on a GPU, chains of ATen operations elsewhere. Computed in float32, rounded once to the
// dtype of the inputs (float32 or bfloat16).
//
// Letters: N rows (tokens), D hidden size, F feed-forward size, Hq query heads, Hkv KV heads, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace kvc {

// rows_i / sqrt(mean_j rows_ij^2 + eps) * weight. rows (N, D), weight (D). Zhang and Sennrich, arXiv:1910.07467.
at::Tensor rms_norm(const at::Tensor& rows, const at::Tensor& weight, double eps);

// {a + b, rms_norm(a + b)}; the norm sees the sum as rounded to the dtype. a, b (N, D).
std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& weight,
                                               double eps);

// silu(gate) * up with silu(x) = x / (1 + exp(-x)). gate_up (N, 2F): gate, then up. Returns (N, F).
at::Tensor silu_mul(const at::Tensor& gate_up);

struct RotaryTables {
  at::Tensor cos, sin;  // (positions, d / 2) float32, on the compute device
};

// The query and key heads of qkv (N, (Hq + 2 Hkv) d), normalised over each head where a norm is given, then rotated:
// with h the first and k the second half of a head, (h cos - k sin, k cos + h sin). positions (N) are rows of the
// tables, checked by the caller. Returns queries (N, Hq, d) and keys (N, Hkv, d). Su et al., arXiv:2104.09864, in the
// half-split layout.
struct RotatedHeads {
  at::Tensor queries, keys;
};
RotatedHeads rotate_heads(const at::Tensor& qkv, int64_t n_query_heads, int64_t n_kv_heads, const at::Tensor& q_norm,
                          const at::Tensor& k_norm, double eps, const RotaryTables& tables,
                          const std::vector<int64_t>& positions);
// positions (N) int64 on qkv's device.
RotatedHeads rotate_heads(const at::Tensor& qkv, int64_t n_query_heads, int64_t n_kv_heads, const at::Tensor& q_norm,
                          const at::Tensor& k_norm, double eps, const RotaryTables& tables,
                          const at::Tensor& positions);

}  // namespace kvc
