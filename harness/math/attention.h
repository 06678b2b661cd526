// Attention pieces over one set of keys, and how pieces are put together again.
//
// Precision policy of the whole project, stated here once: matrix products in the model dtype; scaling, bias, softmax,
// log-sum-exp and every fit in float32 (solvers may go to float64 inside); judges in tests are naive float64 loops.
//
// Letters: Q (n,d) queries, K (T,d) keys, V (T,d) values, S = Q K^T / sqrt(d) + bias (n,T) logits.
//   log_sum_exp_i = log sum_j exp(S_ij)      attention mass_i = exp(log_sum_exp_i)
//   output_i      = sum_j softmax(S_i)_j V_j
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvc {

// Attention of some queries over a part of their keys.
struct PartialAttention {
  at::Tensor output;       // (..., d) float32, normalised over this part; zeros where the part is empty
  at::Tensor log_sum_exp;  // (...) float32; -inf where the part is empty
};

// S = Q K^T / sqrt(d) + bias. Q (n,d) and K (T,d) in the model dtype, bias (T) float32 or undefined (no bias).
// Returns (n,T) float32. Cost 2 n T d flops, 4 n T bytes.
at::Tensor attention_logits(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias);

// The exact combination over the union of two disjoint parts:
//   m = logaddexp(a.lse, b.lse); output = exp(a.lse - m) a.output + exp(b.lse - m) b.output.
// A query that sees nothing in both parts gets output 0 and log_sum_exp -inf (never NaN).
PartialAttention merge(const PartialAttention& a, const PartialAttention& b);

}  // namespace kvc
