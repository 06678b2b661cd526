// Launchers of attention on tensor cores (compute capability 8.0 and on): bfloat16, a head dimension that is a multiple
// of 8 up to 256, float32 sums and softmax, any bias. Raw pointers on one device, no torch header.
//
// attend_rows() is FlashAttention-2 (Dao, arXiv:2307.08691) over ragged KV heads, with a bias and with the row maxima
// that fits are scaled by; LibTorch's own kernels have neither, and round their outputs to bfloat16. sum_columns()
// forms the same logits again, key by key, and adds up what each key gets: a logit never goes through memory. Sums are
// added in an order that the shapes alone decide, without atomics: equal requests leave equal bytes.
//
// Why not FlashInfer, whose prefill kernels could load a bias as well: its outputs and log-sum-exp are those that
// attend_rows() leaves, but row maxima and column sums would need kernels of our own all the same, and it is one more
// dependency of every machine that builds. By reading, not by measuring: at d = 128 a block of attend_rows() has 128
// threads of 243 registers (sm_80; 250 on sm_90) and 52,224 bytes of shared memory, so two fit a multiprocessor; one of
// sum_columns() has 168 registers and 34,816 bytes, so three do. scripts/check_kernels finds HMMA in both and no
// register in local memory. Neither library nor kernels have been timed against each other. HMMA is the instruction of
// 8.0; Hopper's own (WGMMA) would be faster there.
//
// Letters: Hkv KV heads, R rows of queries of each, d head dimension, T entries of a head.
#pragma once

#include <cstdint>

#include "harness/attention/ragged_attention_cuda.h"

namespace kvc::KVC_CUDA_NAMESPACE {

// Rows of one KV head that a block takes: its entries are read once for each so many.
inline constexpr int kTensorRows = 64;

// Of this thread since it began; anyone may set it to nought. Of statistics, every tensor once: what blocks read again
// (entries for every 64 queries, queries for every 128 entries, of one head at a time) is left to the GPU's cache.
// attend_rows() is counted by its callers.
LaunchCount& column_launches();

// Whether attend_rows() takes this prefix: numbers, sizes and addresses.
bool tensor_cores_take(const AttentionShape& shape, const ContextPart& part, const void* queries);

// Where attend_rows() leaves its results, all (n_pieces, N, Hq), output with d numbers each, normalised over its piece.
// row_sum is the sum of exp(S - row_max) as it was added up: exp(log_sum_exp - row_max) would lose as many digits as
// log_sum_exp has before the point. A row that sees nothing has log_sum_exp -inf, row_max -inf and row_sum 0, and an
// output of zeros, or none where its whole piece is empty. row_max and row_sum may be null, and output where the part
// has no values.
struct RowResults {
  float *output = nullptr, *log_sum_exp = nullptr, *row_max = nullptr, *row_sum = nullptr;
};

// As attend() of ragged_attention_cuda.h, of a prefix that tensor_cores_take(). n_visible (N, Hq) on the device, or
// null: row i sees the first n_visible[i] entries of its head. Weights are rounded to bfloat16 before they meet the
// values; their sums are not.
const char* attend_rows(const AttentionShape& shape, const ContextPart& part, const void* queries, int n_pieces,
                        const int64_t* n_visible, const RowResults& results, CudaStream stream);

enum class ColumnSum { kSquares, kLargest, kPlain };

// per_key (Hkv, T) = the sum over the R rows i of a head of A_ij^2, A_ij, or the largest A_ij, where
// A_ij = exp(S_ij - shift_i) for the entries j that row i sees: shift = its log-sum-exp for softmax; +inf: the row
// counts for nothing. queries (Hkv, R, d), keys (Hkv, T, d), both 16-byte aligned; bias (Hkv, T) or null; shift (Hkv,
// R); n_visible (Hkv, R) or null.
struct ColumnShape {
  int64_t n_heads = 0, n_rows = 0, n_entries = 0;
  int head_dim = 0;
};
const char* sum_columns(const ColumnShape& shape, ColumnSum sum, const void* queries, const void* keys,
                        const float* bias, const float* shift, const int64_t* n_visible, float* per_key,
                        CudaStream stream);

}  // namespace kvc::KVC_CUDA_NAMESPACE
