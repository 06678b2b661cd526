// Attention by the project's own CUDA kernels: whether this build has them, and calls on the current stream of the
// tensors' GPU. Without them a GPU computes these parts of attention through LibTorch's operations, which are slower.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/attention/step_attention.h"
#include "harness/kv/kv_cache.h"
#include "harness/math/attention.h"

namespace kvc::gpu {

// Decided when the program is built: nvcc and a LibTorch with CUDA were both there.
bool has_kernels();
// "FlashAttention and own CUDA kernels" or "FlashAttention and LibTorch's operations (this build has no CUDA kernels)",
// for records and `kvc inspect`.
const char* attention_way();

// Whether a GPU's float64 arithmetic is half as fast as its float32 one, as on A100, H100 and H200; false where this
// build cannot ask.
bool has_fast_double(const c10::Device& device);
// All of a GPU's memory; 0 where this build cannot ask.
int64_t memory_bytes(const c10::Device& device);

// True when kernels are there and take these tensors: on a GPU, float32 or bfloat16, contiguous, d <= 256, Hkv <= 128.
bool takes(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, int64_t n_kv_heads);

// As the functions of ragged_attention.h; only where takes(). Throws Error(kInternal) when a launch is refused.
PartialAttention prefix_attention(const at::Tensor& queries, const LayerKv& prefix);
PartialAttention tail_attention(const at::Tensor& queries, const TailView& tails);
at::Tensor context_attention(const at::Tensor& queries, const LayerKv& prefix, const TailView& tails);

// Copies new rows (N, Hkv, d) behind what the tails hold, shapes checked by the caller. False, and nothing written,
// where there is no kernel for it.
bool write_tails(const TailView& tails, const at::Tensor& new_keys, const at::Tensor& new_values);

// As the functions of step_attention.h; only where takes(), new rows with heads side by side. Error(kInternal) as
// above.
at::Tensor step_attention(const at::Tensor& queries, const LayerKv& prefix, const at::Tensor& keys,
                          const at::Tensor& values, const StepTables& tables);
void write_step(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& new_keys,
                const at::Tensor& new_values, const StepTables& tables);

}  // namespace kvc::gpu
