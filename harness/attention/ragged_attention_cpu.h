// Inside of the CPU path of ragged_attention: one block of query rows against one block of keys, for several
// instruction sets.
//
// The query heads of all tokens that share a KV head are pooled as "rows"; up to kCpuLanes rows lie in the lanes of the
// vectors, keys and head dimensions are looped over. So keys and values are read as they lie, every softmax step is
// vertical, and the arithmetic of a row depends on nothing but the row and its keys: not on batch size, thread count or
// how work is split.
//
// A word is 32 bits: one float32, or a pair of neighbouring bfloat16 for kernels with `pairs` (queries and keys:
// neighbouring dimensions; values and weights: neighbouring keys). Scaling, softmax and sums are float32 everywhere.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace kvc {

constexpr int64_t kCpuLanes = 48;       // rows of a row block
constexpr int64_t kCpuBlockKeys = 128;  // keys of a key block; even

// In rising order; what the environment variable KVC_CPU_KERNELS may name.
enum class CpuLevel : std::uint8_t { kPortable, kAvx2, kAvx512, kAvx512Bf16 };
constexpr std::array<std::string_view, 4> kCpuLevelNames = {"portable", "avx2", "avx512", "avx512bf16"};

// What a row block has seen so far. `lanes` is a multiple of the kernel's vector width, at most kCpuLanes.
struct CpuAttentionState {
  float* largest;  // (lanes) largest logit; -inf: nothing yet
  float* total;    // (lanes) sum of exp(logit - largest)
  float* output;   // (d, lanes) sum of exp(logit - largest) V, not normalised
};

struct CpuAttentionBlock {
  int64_t lanes;
  int64_t head_dim;        // a multiple of 8
  int64_t n_keys;          // 1 .. kCpuBlockKeys
  const void* queries;     // words (d or d / 2, lanes), from pack_queries
  const void* keys;        // words (n_keys, d or d / 2)
  const void* values;      // words (n_keys or ceil(n_keys / 2), d)
  const float* bias;       // (n_keys) or nullptr
  const int32_t* visible;  // (lanes): the row sees the first visible[lane] keys of this block; nullptr: all
  float* scratch;          // kCpuBlockKeys * kCpuLanes floats; like states, queries and visible on a 64-byte boundary
};

// One instruction set's functions for one dtype of queries, keys and values.
struct CpuAttentionKernel {
  CpuLevel level;
  bool bfloat16;  // the dtype it reads: bfloat16, or float32
  bool pairs;     // words are pairs of bfloat16
  int64_t width;  // floats in a vector

  // rows[i] -> the d elements of row i, n_rows <= lanes; the other lanes become 0.
  void (*pack_queries)(const void* const* rows, int64_t n_rows, int64_t lanes, int64_t head_dim, void* words);
  // (n_keys, d) elements -> what CpuAttentionBlock reads; nullptr: it reads them as they lie.
  void (*pack_keys)(const void* elements, int64_t n_keys, int64_t head_dim, void* words);
  void (*pack_values)(const void* elements, int64_t n_keys, int64_t head_dim, void* words);
  // Adds a block to `state`.
  void (*attend)(const CpuAttentionBlock& block, const CpuAttentionState& state);
  // Adds what `other` has seen to `state`.
  void (*combine)(const CpuAttentionState& other, int64_t lanes, int64_t head_dim, const CpuAttentionState& state);
};

// The kernels of one source file that this processor can run, best first; empty where the compiler's target has none of
// them.
std::vector<CpuAttentionKernel> cpu_attention_avx512_kernels();
std::vector<CpuAttentionKernel> cpu_attention_avx2_kernels();
std::vector<CpuAttentionKernel> cpu_attention_portable_kernels();

// The best kernel for the dtype up to KVC_CPU_KERNELS. Throws Error(kUsage) for an unknown or unsupported name.
const CpuAttentionKernel& cpu_attention_kernel(bool bfloat16);

}  // namespace kvc
