// Which of a GPU's ways serves which part of a context. The ways are arguments, so that tests make the same choices on
// the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "harness/attention/flash_attention.h"
#include "harness/kv/kv_cache.h"
#include "harness/math/attention.h"

namespace kvc {

struct DeviceAttention {
  FlashAttention* flash;
  // Kernels that take any prefix and tails; as the functions of ragged_attention.h.
  std::function<at::Tensor(const at::Tensor& queries, const LayerKv& prefix, const TailView& tails)> context;
  std::function<PartialAttention(const at::Tensor& queries, const LayerKv& prefix)> prefix;
  std::function<PartialAttention(const at::Tensor& queries, const TailView& tails)> tail;
};

// LibTorch's FlashAttention and this project's CUDA kernels; matrix products for what those do not take, or where the
// build has none.
const DeviceAttention& gpu_attention();

// Rows (new tokens times g) of one sequence from which on its tail is worth a launch of its own. By a sequence's own
// rows alone.
inline constexpr int64_t kLongRows = 1024;

// Rows of a KV head (all new tokens times g) up to which a prefix without bias is left to the kernels too, which divide
// its heads among multiprocessors. Between the two a row's last bits may differ.
inline constexpr int64_t kMostKernelRows = 512;

// As context_attention():
// - prefix without bias, bfloat16, more than kMostKernelRows rows: flash, for the whole batch at once, merged with the
//   tails.
// - other prefixes: kernels over prefix and tails. For each long sequence kernels over the prefix alone in bfloat16
//   (some tokens at a time: gpu::prefix_attention()), matrix products in float32, merged with its tail.
// - tails: flash for each long sequence in bfloat16, matrix products for it in float32, kernels for the others.
at::Tensor context_by(const DeviceAttention& ways, const at::Tensor& queries, const LayerKv& prefix,
                      const TailView& tails);

// Whether flash serves this prefix.
bool flash_serves(const at::Tensor& queries, const LayerKv& prefix);

}  // namespace kvc
