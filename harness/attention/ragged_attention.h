// Attention of a batch of query heads over a ragged prefix that all sequences share, and over each sequence's own tail.
//
// Letters: N packed new tokens of B sequences, Hq query heads, Hkv KV heads, g = Hq / Hkv, d head dimension.
// Query head h reads KV head h / g (integer division).
//
// On the CPU, float32 and bfloat16 with a head dimension that is a multiple of 8 run in fused kernels of this project's
// own (float32 softmax and sums; AVX512_BF16 and portable round bfloat16 weights to bfloat16), everything else in plain
// ATen, in float32. In the fused kernels a row's result does not depend, not even in its last bit, on the batch, on the
// threads or on how the rows were split over calls. The environment variable KVC_CPU_KERNELS = portable, avx2, avx512
// or avx512bf16 lowers the instruction set; Error(kUsage) when the processor does not have it.
//
// On a GPU (device_attention.h chooses) many rows without bias in bfloat16 run in LibTorch's FlashAttention kernels,
// steps of decoding, prefixes with a bias and float32 in CUDA kernels of this project's own where the build has them
// (float32 sums, head dimension up to 256; a row's result does not depend on its batch), the rest in LibTorch's
// operations.
#pragma once

#include <ATen/core/Tensor.h>

#include "harness/kv/kv_cache.h"
#include "harness/math/attention.h"

namespace kvc {

// queries (N, Hq, d) model dtype, rotated. Every query sees every entry of the prefix, bias added. Entries are read
// once for the whole batch. Returns output (N, Hq, d), log_sum_exp (N, Hq). Cost 4 N g d sum_h len_h flops.
PartialAttention prefix_attention(const at::Tensor& queries, const LayerKv& prefix);

// Causal attention of each sequence's new tokens over its own tail, the new tokens included: token i of sequence b sees
// lengths[b] + i + 1 entries.
PartialAttention tail_attention(const at::Tensor& queries, const TailView& tails);

// Both, merged: what a decoder layer needs, (N, Hq, d) in the queries' dtype. Arguments as above.
at::Tensor context_attention(const at::Tensor& queries, const LayerKv& prefix, const TailView& tails);

}  // namespace kvc
