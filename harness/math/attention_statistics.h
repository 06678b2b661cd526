// Statistics of a head's attention that selection and fits need, in one pass over it.
//
// Letters: T entries, n queries; S (n,T) logits, m_i = max_j S_ij, A = softmax(S) (n,T).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvc {

// Over the queries of A^2, A or A; kNone: per_key is left out.
enum class KeySum : std::uint8_t { kSquares, kLargest, kPlain, kNone };

struct AttentionStatistics {
  at::Tensor row_max;  // (n,1) m
  at::Tensor row_sum;  // (n,1) sum_j exp(S_ij - m_i)
  at::Tensor per_key;  // (T), or undefined
  at::Tensor output;   // (n,dv) A V, or undefined
};

// Which entries of `keys` a query sees, how much attention it has elsewhere, and how much it counts. Each may be
// undefined.
struct RowReach {
  at::Tensor n_visible;  // (n) int64, in [0, T]: only the first n_visible entries; undefined: all
  // (n) float32, ln of the mass that a query has on entries elsewhere: A_ij = exp(S_ij) / (sum_j exp(S_ij) +
  // exp(elsewhere_i)). row_max, row_sum and the output are of the visible entries alone.
  at::Tensor elsewhere;
  // (n) float32 >= 0: A_ij counts weight_i times in per_key; undefined: once.
  at::Tensor weight = {};
};

// queries (n,d), over sqrt(d) already, keys (T,d), bias (T) or undefined, values (T,dv) or undefined: float32 on the
// CPU, all results too. 16 queries at a time: 64 T bytes beside packed copies of keys and values. One thread. A query
// that sees nothing has row_sum 0, A 0 and output 0.
AttentionStatistics attention_statistics(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                         const at::Tensor& values, KeySum sum, const RowReach& reach = {});

}  // namespace kvc
