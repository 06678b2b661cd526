// Attention by LibTorch's FlashAttention-2 kernels (Dao, arXiv:2307.08691): bfloat16 on tensor cores, logits never in
// memory. It serves what many rows read and has no bias: a document while it is read, and prefixes of any ragged shape,
// whose KV heads are given to it as sequences of their own. Prefixes with a bias, for which the library has no
// argument, and steps of decoding, whose few rows would leave most of a GPU idle, are left to this project's kernels.
//
// Letters: N new tokens, Hq query heads, Hkv KV heads, g = Hq / Hkv, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/kv/kv_cache.h"
#include "harness/math/attention.h"

namespace kvc {

// S sequences one behind the other, each with rows of queries and entries of its own.
struct PackedSequences {
  at::Tensor queries;        // (rows, Hq, d)
  at::Tensor keys, values;   // (entries, Hkv, d); only d must be dense
  at::Tensor query_offsets;  // (S + 1) int32 on the tensors' device: rows of sequence s are [s], .. [s + 1] - 1
  at::Tensor key_offsets;    // (S + 1) int32, likewise of the entries
  int64_t most_rows = 0;     // of one sequence
  int64_t most_entries = 0;  // of one sequence
  bool causal = false;       // the last row sees all of its sequence's entries, each row before it one fewer
};

struct FlashResult {
  at::Tensor output;       // (rows, Hq, d) in the queries' dtype; zeros where a row sees nothing
  at::Tensor log_sum_exp;  // (Hq, rows) float32; +inf where a row sees nothing
};

// What the functions below call: the library's kernels, or, in tests, a stand-in that runs on the CPU.
using FlashAttention = FlashResult(const PackedSequences&);

// LibTorch's kernels; GPU only. Throws Error(kInternal) when the library gives its results another shape than above.
FlashResult library_flash_attention(const PackedSequences& sequences);

// Whether those kernels take tensors of this kind: bfloat16 with a head dimension that is a multiple of 8, at most 256.
bool flash_takes(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values);

// As prefix_attention() of ragged_attention.h, output in the queries' dtype, for prefix.n_entries() > 0 without bias.
// Each KV head is a sequence whose rows are the N g rows of its query heads; it is read once for every 128 of them.
// Throws Error(kInternal) for more rows or entries than int32 counts.
PartialAttention flash_prefix(const at::Tensor& queries, const LayerKv& prefix, FlashAttention* flash);

// As tail_attention() of ragged_attention.h for a batch of one: keys, values (1, Hkv, capacity, d), `length` entries
// before the N new ones. Output in the queries' dtype. Nothing is copied.
PartialAttention flash_tail(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, int64_t length,
                            FlashAttention* flash);

}  // namespace kvc
