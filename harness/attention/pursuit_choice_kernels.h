// The matching pursuit's kernels of a choice: correlations of keys with the residual, the highest of them, and these in
// float64. Part of pursuit_cuda.cu.
#pragma once

#include "harness/attention/cuda_kernel.h"
#include "harness/attention/pursuit_cuda.h"

// In a namespace of its own: tests compile several files of kernels in one.
namespace kvc::KVC_CUDA_NAMESPACE::pursuit {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpLanes;
constexpr int kLeastBlocks = 3;
static_assert(kMostCandidates <= kThreads);
static_assert(sizeof(PursuitHeads) + sizeof(PursuitNumbers) + 16 <= 4096, "kernel arguments of every CUDA version");

// Of a column's squared norm: what others leave of it when they span it.
constexpr double kDependent = 1e-10;

__device__ __forceinline__ double warp_sum(double x) {
  for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

__device__ __forceinline__ int warp_of_thread() {
  return static_cast<int>(threadIdx.x) / kWarpLanes;
}
__device__ __forceinline__ int lane_of_thread() {
  return static_cast<int>(threadIdx.x) % kWarpLanes;
}

// Of the whole block, the same for every thread. `sums` (kWarps) is shared.
__device__ double block_sum(double x, double* sums) {
  x = warp_sum(x);
  __syncthreads();  // nobody reads an earlier sum any more
  if (lane_of_thread() == 0) sums[warp_of_thread()] = x;
  __syncthreads();
  double total = 0;
  for (int w = 0; w < kWarps; ++w) total += sums[w];
  return total;
}

__device__ __forceinline__ bool solves(const PursuitNumbers& numbers, int head) {
  return (numbers.flags[head] & kSolves) != 0;
}
__device__ __forceinline__ bool scans(const PursuitNumbers& numbers, int head) {
  return (numbers.flags[head] & kScans) != 0;
}

// The keys that a head picks among, and the j-th of them.
__device__ __forceinline__ int64_t n_choices(const PursuitHeads& heads, const PursuitNumbers& numbers, int head) {
  return scans(numbers, head) ? heads.n_keys : heads.n_at_hand;
}
__device__ __forceinline__ int64_t key_at(const PursuitHeads& heads, const PursuitNumbers& numbers, int head,
                                          int64_t j) {
  return heads.at_hand == nullptr || scans(numbers, head) ? j : heads.at_hand[head * heads.n_at_hand + j];
}

__device__ __forceinline__ const float* column_of(const PursuitHeads& heads, int head, int64_t key) {
  return heads.table + (heads.first_row[head] + key) * heads.n_queries;
}

constexpr int kScannedKeys = 4;  // of a warp at a time: they share what is read of the residual

// Correlations of all keys by the coarse table. The head's blocks take them in turn.
__device__ void scan(const PursuitHeads& heads, int head) {
  const int lane = lane_of_thread();
  const int64_t words = heads.padded / 4, stride = static_cast<int64_t>(gridDim.x) * kWarps * kScannedKeys;
  const auto* residual = reinterpret_cast<const float4*>(heads.residual32 + head * heads.padded);
  for (int64_t key = (static_cast<int64_t>(blockIdx.x) * kWarps + warp_of_thread()) * kScannedKeys; key < heads.n_keys;
       key += stride) {
    const uint32_t* rows[kScannedKeys];
    float sums[kScannedKeys];
    KVC_UNROLL
    for (int k = 0; k < kScannedKeys; ++k) {
      const int64_t row = heads.first_row[head] + (key + k < heads.n_keys ? key + k : key);
      rows[k] = reinterpret_cast<const uint32_t*>(heads.coarse + row * heads.padded);
      sums[k] = 0;
    }
    for (int64_t w = lane; w < words; w += kWarpLanes) {
      const float4 r = residual[w];
      KVC_UNROLL
      for (int k = 0; k < kScannedKeys; ++k) {
        const uint32_t steps = rows[k][w];
        sums[k] += static_cast<float>(steps & 255U) * r.x + static_cast<float>((steps >> 8U) & 255U) * r.y +
                   static_cast<float>((steps >> 16U) & 255U) * r.z + static_cast<float>(steps >> 24U) * r.w;
      }
    }
    KVC_UNROLL
    for (int k = 0; k < kScannedKeys; ++k) {
      const float sum = warp_sum(sums[k]);
      if (lane != 0 || key + k >= heads.n_keys) continue;
      const bool taken = heads.taken[head * heads.n_keys + key + k];
      heads.rough[head * heads.n_keys + key + k] =
          taken ? -INFINITY : sum * heads.coarse_step[heads.first_row[head] + key + k];
    }
  }
}

// A warp for each key at hand. Some 64 products of a lane are added in float32, these sums in float64.
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    correlate_kernel(const PursuitHeads heads, const PursuitNumbers numbers, bool aligned) {
  const int head = static_cast<int>(blockIdx.y), lane = lane_of_thread();
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kWarps + warp_of_thread(), n = heads.n_queries;
  if (numbers.picks[head] == 0) return;
  if (scans(numbers, head)) return scan(heads, head);
  if (j >= heads.n_at_hand) return;
  const int64_t key = key_at(heads, numbers, head, j);
  float* to = heads.rough + head * heads.n_keys + j;
  if (heads.taken[head * heads.n_keys + key]) {
    if (lane == 0) *to = -INFINITY;
    return;
  }
  const float *column = column_of(heads, head, key), *residual = heads.residual32 + head * heads.padded;
  constexpr int kTogether = 4;  // reads under way
  constexpr int kInFloat = 64;  // products of a lane that are added up in float32
  double total = 0;
  if (aligned) {
    const auto* a = reinterpret_cast<const float4*>(column);
    const auto* b = reinterpret_cast<const float4*>(residual);
    const int64_t packs = n / 4;
    for (int64_t begin = lane; begin < packs; begin += kInFloat / 4 * kWarpLanes) {
      float sum = 0;
      for (int64_t first = begin; first < packs && first < begin + kInFloat / 4 * kWarpLanes;
           first += kTogether * kWarpLanes) {
        KVC_UNROLL
        for (int i = 0; i < kTogether; ++i) {
          const int64_t p = first + i * kWarpLanes;
          if (p >= packs) continue;
          const float4 x = a[p], y = b[p];
          sum += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
        }
      }
      total += static_cast<double>(sum);
    }
  } else {
    for (int64_t first = lane; first < n; first += kInFloat * kWarpLanes) {
      float sum = 0;
      for (int i = 0; i < kInFloat; ++i) {
        const int64_t q = first + i * kWarpLanes;
        if (q < n) sum += column[q] * residual[q];
      }
      total += static_cast<double>(sum);
    }
  }
  total = warp_sum(total);
  if (lane == 0) *to = static_cast<float>(total);
}

// Numbers in the order of the floats they stand for.
__device__ __forceinline__ unsigned rank_bits(float x) {
  const unsigned bits = __float_as_uint(x);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// Of all threads before this one. `counts` (kThreads) is shared.
__device__ int sum_before(int count, int* counts) {
  __syncthreads();
  counts[threadIdx.x] = count;
  __syncthreads();
  int before = 0;
  for (int t = 0; t < static_cast<int>(threadIdx.x); ++t) before += counts[t];
  return before;
}

struct ChooseMemory {
  int counts[kThreads];
  double sums[kWarps];
  float rough[kMostCandidates];
  int position[kMostCandidates];
  unsigned prefix;
  int wanted;
  float least;
};

// The n_candidates highest of `rough` (J), in order of position, into shared.rough and shared.position: radix
// selection, 8 bits at a time from the highest; of equal ones at the border the first.
__device__ void select_highest(const float* rough, int64_t n_at_hand, int n_candidates, ChooseMemory& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    shared.prefix = 0;
    shared.wanted = n_candidates;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    shared.counts[thread] = 0;
    __syncthreads();
    const unsigned above = shift == 24 ? 0U : ~0U << (shift + 8), prefix = shared.prefix;
    for (int64_t j = thread; j < n_at_hand; j += kThreads) {
      const unsigned bits = rank_bits(rough[j]);
      if ((bits & above) == prefix) atomicAdd(&shared.counts[(bits >> shift) & 255U], 1);
    }
    __syncthreads();
    if (thread == 0) {
      int digit = 255, wanted = shared.wanted;
      while (digit > 0 && shared.counts[digit] < wanted) wanted -= shared.counts[digit--];
      shared.wanted = wanted;
      shared.prefix = prefix | static_cast<unsigned>(digit) << shift;
    }
    __syncthreads();
  }
  // Threads take neighbouring stretches, so that places rise with positions.
  const unsigned border = shared.prefix;
  const int wanted = shared.wanted;  // of those at the border
  const int64_t stretch = (n_at_hand + kThreads - 1) / kThreads, begin = thread * stretch;
  const int64_t end = begin + stretch < n_at_hand ? begin + stretch : n_at_hand;
  int equal = 0, higher = 0;
  for (int64_t j = begin; j < end; ++j) {
    const unsigned bits = rank_bits(rough[j]);
    equal += bits == border ? 1 : 0;
    higher += bits > border ? 1 : 0;
  }
  const int equal_before = sum_before(equal, shared.counts), higher_before = sum_before(higher, shared.counts);
  int equal_taken = equal_before < wanted ? equal_before : wanted;
  int place = higher_before + equal_taken;
  for (int64_t j = begin; j < end; ++j) {
    const unsigned bits = rank_bits(rough[j]);
    if (bits < border || (bits == border && equal_taken >= wanted)) continue;
    equal_taken += bits == border ? 1 : 0;
    shared.rough[place] = rough[j];
    shared.position[place++] = static_cast<int>(j);
  }
  __syncthreads();
}

// Whether a key outside the candidates could be among the `picks` highest, for all that float32 tells.
__device__ bool is_cut(const PursuitHeads& heads, int head, int picks, const float* rough, ChooseMemory& shared) {
  const int thread = static_cast<int>(threadIdx.x), n = heads.n_candidates;
  if (heads.n_at_hand <= n) return false;
  if (thread < n) {
    int higher = 0;
    for (int c = 0; c < n; ++c) {
      higher += shared.rough[c] > shared.rough[thread] || (shared.rough[c] == shared.rough[thread] && c < thread);
    }
    if (higher == picks - 1) shared.least = shared.rough[thread];
  }
  __syncthreads();
  const double least = static_cast<double>(shared.least) - heads.margin[head];
  int count = 0;
  for (int64_t j = thread; j < heads.n_at_hand; j += kThreads) count += static_cast<double>(rough[j]) >= least ? 1 : 0;
  return block_sum(count, shared.sums) > n;
}

// Every block of a head finds its candidates, and takes kWarps of them for the correlations in float64.
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    choose_kernel(const PursuitHeads heads, const PursuitNumbers numbers) {
  __shared__ ChooseMemory shared;
  const int head = static_cast<int>(blockIdx.y), lane = lane_of_thread(), picks = numbers.picks[head];
  if (picks == 0) {
    const int thread = static_cast<int>(threadIdx.x);
    if (blockIdx.x == 0 && thread == 0) heads.n_cut[head] = heads.n_cut_before[head];
    if (blockIdx.x == 0 && thread < heads.n_candidates) heads.candidates[head * heads.n_candidates + thread] = 0;
    return;
  }
  const float* rough = heads.rough + head * heads.n_keys;
  select_highest(rough, n_choices(heads, numbers, head), heads.n_candidates, shared);
  if (blockIdx.x == 0) {
    // A scan's roughness is judged by the check of all keys.
    const bool cut = !scans(numbers, head) && is_cut(heads, head, picks, rough, shared);
    if (threadIdx.x == 0) heads.n_cut[head] = heads.n_cut_before[head] + (cut ? 1 : 0);
  }
  const int candidate = static_cast<int>(blockIdx.x) * kWarps + warp_of_thread();
  if (candidate >= heads.n_candidates) return;
  const int64_t place = head * static_cast<int64_t>(heads.n_candidates) + candidate, n = heads.n_queries;
  const int64_t key = key_at(heads, numbers, head, shared.position[candidate]);
  double height = -INFINITY;
  if (shared.rough[candidate] != -INFINITY) {
    const float* column = column_of(heads, head, key);
    const double* residual = heads.residual + head * n;
    double sum = 0;
    for (int64_t q = lane; q < n; q += kWarpLanes) sum += static_cast<double>(column[q]) * residual[q];
    height = warp_sum(sum);
  }
  if (lane == 0) {
    heads.candidates[place] = key;
    heads.heights[place] = height;
  }
}

// The place of the i-th highest candidate, equal ones in order; the same for all threads.
__device__ int place_of(const double* heights, int n_candidates, int i, int* found) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) *found = 0;
  __syncthreads();
  if (thread < n_candidates) {
    int higher = 0;
    const double own = heights[thread];
    for (int c = 0; c < n_candidates; ++c) higher += heights[c] > own || (heights[c] == own && c < thread) ? 1 : 0;
    if (higher == i) *found = thread;
  }
  __syncthreads();
  return *found;
}

}  // namespace
}  // namespace kvc::KVC_CUDA_NAMESPACE::pursuit
