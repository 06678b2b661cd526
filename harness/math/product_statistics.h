// The statistics of attention_statistics.h for many heads at once, by matrix products: for GPUs in float32 and float16,
// in bfloat16 where a build has no kernels of its own (harness/attention/device_statistics.h), and for other head
// dimensions. The same operations run on the CPU, where tests hold them against float64 loops.
//
// Letters: H heads, T entries, n queries of a head, S (n,T) logits, A = softmax(S).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/math/attention_statistics.h"

namespace kvc {

inline constexpr int64_t kStatisticsBytes = int64_t{1} << 30;

// queries (H,n,d) not yet over sqrt(d), keys (H,T,d), values (H,T,dv) or undefined, of one device and of the model's
// dtype; bias (H,T) float32 or undefined. Results are float32: row_max and row_sum (H,n,1), per_key (H,T), output
// (H,n,dv). A reach is that of a single head (H = 1), its tensors on any device.
//
// Products of bfloat16 are summed in float32; on a GPU the weights are rounded to bfloat16 for A V. The host waits for
// nothing. Logits of some queries of all heads exist at a time, at most `bytes` of them twice, but never of fewer than
// 16 queries. Traffic without a reach: 32 to 40 bytes a logit, 8 more with a bias.
AttentionStatistics statistics_by_products(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                           const at::Tensor& values, KeySum sum, const RowReach& reach = {},
                                           int64_t bytes = kStatisticsBytes);

// S of many heads into `out` (H,n,T) float32, contiguous: one product, and for a bias one copy before it.
void logits_into(at::Tensor& out, const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias);

}  // namespace kvc
