// Test hook: stands in for the CUDA kernels in a build without them, so that the code that launches them runs, and its
// launches are counted, on a machine without CUDA. Builds with kernels do not have it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>

#include "harness/attention/step_attention.h"
#include "harness/kv/kv_cache.h"
#include "harness/math/attention.h"
#include "harness/math/attention_statistics.h"
#include "harness/math/pursuit_kernels.h"

namespace kvc::gpu {

// Functions of ragged_attention_gpu.h, layer_kernels.h, device_statistics.h and device_pursuit_kernels.h, by name.
struct KernelStandIn {
  int64_t memory_bytes = 0;
  bool fast_double = false;
  std::function<bool(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, int64_t n_kv_heads)>
      takes;
  std::function<PartialAttention(const at::Tensor& queries, const LayerKv& prefix)> prefix_attention;
  std::function<PartialAttention(const at::Tensor& queries, const TailView& tails)> tail_attention;
  std::function<at::Tensor(const at::Tensor& queries, const LayerKv& prefix, const TailView& tails)> context_attention;
  std::function<bool(const TailView& tails, const at::Tensor& new_keys, const at::Tensor& new_values)> write_tails;
  std::function<at::Tensor(const at::Tensor& queries, const LayerKv& prefix, const at::Tensor& keys,
                           const at::Tensor& values, const StepTables& tables)>
      step_attention;
  std::function<void(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& new_keys,
                     const at::Tensor& new_values, const StepTables& tables)>
      write_step;
  using Pair = std::optional<std::pair<at::Tensor, at::Tensor>>;
  std::function<Pair(const at::Tensor& qkv, int64_t n_query_heads, int64_t n_kv_heads, const at::Tensor& q_norm,
                     const at::Tensor& k_norm, double eps, const at::Tensor& cos, const at::Tensor& sin,
                     const at::Tensor& positions)>
      rotate_heads;
  std::function<Pair(const at::Tensor& a, const at::Tensor& b, const at::Tensor& weight, double eps)> add_rms_norm;
  std::function<std::optional<at::Tensor>(const at::Tensor& gate_up)> silu_mul;
  std::function<std::optional<AttentionStatistics>(const at::Tensor& queries, const at::Tensor& keys,
                                                   const at::Tensor& bias, const at::Tensor& values, KeySum sum,
                                                   const RowReach& reach)>
      attention_statistics;
  PursuitKernels pursuit_kernels;
};

// `calls` outlives what follows; null: nothing. Throws Error(kInternal) in a build with kernels.
void set_stand_in(const KernelStandIn* calls);
const KernelStandIn* stand_in();

}  // namespace kvc::gpu
