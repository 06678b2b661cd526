// Attention as written on paper: float64, one query and one key at a time. Judges of every kernel; read for clarity
// only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/kv/kv_cache.h"
#include "harness/math/attention.h"

namespace kvc {

// queries (n, d), keys and values (T, d), bias (T) or undefined, of any dtype on the CPU; query i sees the first
// visible[i] entries. Returns float64: output (n, d), log_sum_exp (n).
PartialAttention naive_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                 const at::Tensor& bias, const std::vector<int64_t>& visible);

// As prefix_attention and tail_attention, float64.
PartialAttention naive_prefix_attention(const at::Tensor& queries, const LayerKv& prefix);
PartialAttention naive_tail_attention(const at::Tensor& queries, const TailView& tails);

}  // namespace kvc
