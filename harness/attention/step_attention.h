// Attention in a step of decoding, one new token for each of B sequences, where the lengths of the tails are numbers on
// the device: nothing the host decides depends on them, so a captured CUDA graph can be replayed as the tails grow.
//
// Letters: B sequences, Hq query heads, Hkv KV heads, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/kv/kv_cache.h"

namespace kvc {

// int64, contiguous, on the device of the tails.
struct StepTables {
  at::Tensor lengths;  // (B), the tails' entries before this step
  at::Tensor offsets;  // (B + 1): 0, 1, .. B

  // offsets on `device`; lengths to be filled in.
  static StepTables of(int64_t batch, const c10::Device& device);
};

// Whether the two functions below serve tensors of this kind: on the CPU always, on a GPU where this build has the
// kernels and they take float32 or bfloat16 heads of this size.
bool serves_steps(const at::TensorOptions& options, int64_t n_kv_heads, int64_t head_dim);

// context_attention() of queries (B, Hq, d): bit for bit on the CPU and, on a GPU, up to kMostKernelRows rows of a KV
// head (device_attention.h); within the last bits of bfloat16 for more. keys, values (B, Hkv, capacity, d) already hold
// the new rows. Throws Error(kInternal) where !serves_steps().
at::Tensor step_attention(const at::Tensor& queries, const LayerKv& prefix, const at::Tensor& keys,
                          const at::Tensor& values, const StepTables& tables);

// Tails::write() of new_keys and new_values (B, Hkv, d), d dense and heads side by side. The caller sees to it that
// every length is below the capacity.
void write_step(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& new_keys,
                const at::Tensor& new_values, const StepTables& tables);

}  // namespace kvc
