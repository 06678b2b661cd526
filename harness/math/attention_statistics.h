// One pass over the attention of a head that leaves what selection and fits need of it.
//
// Letters: T entries, n queries; S (n,T) logits, m_i = max_j S_ij, A = softmax(S) (n,T).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvc {

enum class KeySum : std::uint8_t { kSquares, kLargest, kPlain };  // over the queries of A^2, A or A

struct AttentionStatistics {
  at::Tensor row_max;  // (n,1) m
  at::Tensor row_sum;  // (n,1) sum_j exp(S_ij - m_i)
  at::Tensor per_key;  // (T)
  at::Tensor output;   // (n,dv) A V, or undefined
};

// queries (n,d), over sqrt(d) already, keys (T,d), bias (T) or undefined, values (T,dv) or undefined: float32 on the
// CPU, all results too. 16 queries at a time: 64 T bytes beside packed copies of keys and values. One thread.
AttentionStatistics attention_statistics(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                         const at::Tensor& values, KeySum sum);

}  // namespace kvc
