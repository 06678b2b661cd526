// Launchers of the attention kernels: raw pointers on one device, no torch header. Shapes as in ragged_attention.h.
//
// Prefixes in bfloat16 whose head dimension is a multiple of 8 go to tensor cores (tensor_attention_cuda.h), and are
// read once for every 64 rows of a KV head. Tails, float32 and other sizes are served in float32 arithmetic, a part
// read once for every 32 rows of one KV head (16 for heads wider than 128; 8 where no sequence brings more).
//
// The keys that a row of queries sees are divided into pieces (a part of the context, and within it a range of
// entries); every piece leaves its own output and log-sum-exp in a workspace, merge_pieces() puts them together.
// Flash-decoding (Dao et al., 2023) with ragged heads: heads differ in length, so a range is a share of each head's own
// length.
#pragma once

#include <cstdint>

#include "harness/attention/cuda_launch.h"

namespace kvc::KVC_CUDA_NAMESPACE {

inline constexpr int kMaxKvHeads = 128;  // their offsets travel as a kernel argument: nothing is copied to the
                                         // device
inline constexpr int kMaxHeadDim = 256;

// Into how many pieces a head of `n_entries` is divided, in whole tiles of kPieceTile entries. By its own length alone:
// what a row sees is added up in the same order whatever stands beside it in the batch. A piece costs a write and a
// read of its output; too few leave multiprocessors idle.
inline constexpr int kPieceTile = 32;
KVC_HOST_DEVICE constexpr int pieces_for(int64_t n_entries) {
  constexpr int64_t kLeastEntries = 4 * kPieceTile, kMostPieces = 32;
  const int64_t n = (n_entries + kLeastEntries - 1) / kLeastEntries;
  return static_cast<int>(n < 1 ? 1 : n > kMostPieces ? kMostPieces : n);
}

struct AttentionShape {
  Number number = Number::kFloat32;  // of queries, keys and values
  int64_t n_tokens = 0;              // N
  int head_dim = 0;                  // d
  int n_query_heads = 0;             // Hq
  int n_kv_heads = 0;                // Hkv
};

// Keys of one part of the context. Of a prefix, head h is entries [head_offsets[h], head_offsets[h+1]), and every token
// sees them all. Of tails (lengths is not null), head h of sequence b is the first lengths[b] + n entries from (b Hkv +
// h) capacity on, where n = sequence_offsets[b+1] - sequence_offsets[b]; token i of the n sees lengths[b] + i + 1.
struct ContextPart {
  const void* keys = nullptr;    // rows of d numbers
  const void* values = nullptr;  // likewise
  const float* bias = nullptr;   // prefix only; null = zeros
  int64_t head_offsets[kMaxKvHeads + 1] = {};
  const int64_t* lengths = nullptr;           // (B), on the device: a captured graph may
                                              // be replayed as they grow
  const int64_t* sequence_offsets = nullptr;  // (B + 1), on the device
  int64_t batch = 1;
  int64_t capacity = 0;
  int64_t most_tokens = 0;   // of one sequence; all N for a prefix. An upper bound
  int64_t most_entries = 0;  // of one head. An upper bound; chooses the number of pieces only
};

// Of this thread since it began; anyone may set it to nought. Of tails, whose lengths the host does not know, the bytes
// are those of the most entries they may have.
LaunchCount& attention_launches();

// How many pieces the longest head is divided into. A head's own division follows from its own length alone, so that a
// row's result does not depend on the rest of the batch.
int pieces_of(const ContextPart& part);

// output (n_pieces, N, Hq, d), log_sum_exp (n_pieces, N, Hq): a piece without entries leaves -inf, and no output. A
// bias of -inf switches its entry off; NaN or +inf among the logits makes the row's result NaN. queries (N, Hq, d)
// contiguous. Returns why it failed, or null.
const char* attend(const AttentionShape& shape, const ContextPart& part, const void* queries, int n_pieces,
                   float* output, float* log_sum_exp, CudaStream stream);

// The exact combination of the pieces: into `output` (N, Hq, d) of `number`, and, where it is not null, log_sum_exp (N,
// Hq). Rows that see nothing become zeros and -inf.
const char* merge_pieces(const AttentionShape& shape, int n_pieces, const float* piece_output,
                         const float* piece_log_sum_exp, Number number, void* output, float* log_sum_exp,
                         CudaStream stream);

// Copies new keys and values (N, Hkv, d), whose tokens are key_stride and value_stride numbers apart, behind what the
// tails hold. part as above: keys and values are written to.
const char* write_tails(const AttentionShape& shape, const ContextPart& part, const void* new_keys, int64_t key_stride,
                        const void* new_values, int64_t value_stride, CudaStream stream);

}  // namespace kvc::KVC_CUDA_NAMESPACE
