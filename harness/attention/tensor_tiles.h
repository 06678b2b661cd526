// What the kernels of tensor_attention_cuda.cu share: tiles of queries and keys in shared memory, and the logits of a
// warp's rows with a tile of keys. Part of that file.
#pragma once

#include "harness/attention/tensor_attention_cuda.h"
#include "harness/attention/tensor_cores.h"

namespace kvc::KVC_CUDA_NAMESPACE {
namespace {

using Half = __nv_bfloat16;

constexpr int kTensorWarps = kTensorRows / 16;
constexpr int kTensorThreads = kTensorWarps * kWarpLanes;
constexpr float kLog2E = 1.4426950408889634F;

// Head dimensions are served in steps of 16, filled up with zeros to kSteps of them.
template <int kSteps>
struct Tiles {
  static constexpr int kDim = 16 * kSteps;
  static constexpr int kStride = kDim + 8;               // rows of a tile begin 16 bytes apart modulo 128: no conflicts
  static constexpr int kEntries = kSteps > 8 ? 32 : 64;  // of a tile of keys or values
  static constexpr int kKeyTiles = kSteps > 8 ? 1 : 2;   // of 16 keys, held by a warp that adds up columns
  static constexpr int kQueries = 64;                    // of a tile that they meet
};

// Rows [0, n) of d numbers, one behind the other in memory, into a tile of kRows rows; zeros elsewhere. Nobody waits.
template <int kSteps, int kRows>
__device__ __forceinline__ void copy_tile(const Half* from, int64_t n, int d, Half* to) {
  constexpr int kPacks = 2 * kSteps, kColumns = kPacks > 16 ? 32 : kPacks > 8 ? 16 : 8;  // threads side by side
  constexpr int kRowsAtOnce = kTensorThreads / kColumns;
  const int column = static_cast<int>(threadIdx.x) % kColumns * 8, first = static_cast<int>(threadIdx.x) / kColumns;
  if (column >= 8 * kPacks) return;
  const int rows = column >= d ? 0 : n < kRows ? static_cast<int>(n) : kRows;
  const Half* source = from + static_cast<int64_t>(first) * d + column;
  Half* place = to + first * Tiles<kSteps>::kStride + column;
  KVC_UNROLL
  for (int row = 0; row < kRows; row += kRowsAtOnce) {
    const bool there = first + row < rows;
    copy_async(place + row * Tiles<kSteps>::kStride, there ? source : from, there);
    source += kRowsAtOnce * d;
  }
}

// Where a lane finds its row of an a-operand of 16 rows in a tile; also of a b-operand whose columns are the tile's.
__device__ __forceinline__ const Half* row_operand(const Half* tile, int stride, int lane) {
  return tile + lane % 16 * stride + lane / 16 * 8;
}
// Of two b-operands side by side whose columns are 16 rows of a tile.
__device__ __forceinline__ const Half* column_operand(const Half* tile, int stride, int lane) {
  return tile + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8;
}

__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// The entries of a head that a block reads: piece blockIdx.y of as many as its length asks for.
struct Range {
  int64_t begin, end;
};
__device__ Range range_of(int64_t n_entries, int n_pieces) {
  const int wanted = pieces_for(n_entries), own = wanted < n_pieces ? wanted : n_pieces;
  const int piece = static_cast<int>(blockIdx.y);
  if (piece >= own) return {0, 0};
  const int64_t n_tiles = (n_entries + kPieceTile - 1) / kPieceTile;
  const int64_t end = n_tiles * (piece + 1) / own * kPieceTile;
  return {n_tiles * piece / own * kPieceTile, end < n_entries ? end : n_entries};
}

// Where in (N, Hq) a row of a KV head lies. A division of 64 bits would be a call, around which registers are spilled.
__device__ __forceinline__ int64_t query_of(const AttentionShape& shape, int64_t row, int head) {
  const auto group = static_cast<unsigned>(shape.n_query_heads / shape.n_kv_heads), own = static_cast<unsigned>(row);
  return static_cast<int64_t>(own / group) * shape.n_query_heads + static_cast<int64_t>(head) * group + own % group;
}

// This block's rows into shared memory, wherever a row of its KV head lies among the query heads.
template <int kSteps>
__device__ void copy_queries(const AttentionShape& shape, const Half* queries, int64_t first, int64_t n_rows, int head,
                             Half* to) {
  constexpr int kPacks = Tiles<kSteps>::kDim / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kTensorRows * kPacks; i += kTensorThreads) {
    const int64_t row = first + i / kPacks;
    const int column = i % kPacks * 8;
    const bool there = row < n_rows && column < shape.head_dim;
    const Half* from = there ? queries + query_of(shape, row, head) * shape.head_dim + column : queries;
    copy_async(to + i / kPacks * Tiles<kSteps>::kStride + column, from, there);
  }
}

// Logits of a warp's 16 rows with a tile of keys, the tile's bias added; minus infinity behind the first `seen` entries
// of the tile, which this lane's rows see.
template <int kSteps>
__device__ __forceinline__ void form_logits(const Half* queries, const Half* keys, const float* bias, float scale,
                                            const int (&seen)[2], int lane,
                                            float (&logits)[Tiles<kSteps>::kEntries / 8][4]) {
  using Tile = Tiles<kSteps>;
  KVC_UNROLL
  for (int t = 0; t < Tile::kEntries / 8; ++t) {
    KVC_UNROLL
    for (int i = 0; i < 4; ++i) logits[t][i] = 0;
  }
  KVC_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    uint32_t a[4];
    load_matrices(a, row_operand(queries + 16 * k, Tile::kStride, lane));
    KVC_UNROLL
    for (int t = 0; t < Tile::kEntries / 8; t += 2) {
      uint32_t b[4];
      load_matrices(b, column_operand(keys + 8 * t * Tile::kStride + 16 * k, Tile::kStride, lane));
      multiply_add(logits[t], a, b[0], b[1]);
      multiply_add(logits[t + 1], a, b[2], b[3]);
    }
  }
  KVC_UNROLL
  for (int t = 0; t < Tile::kEntries / 8; ++t) {
    KVC_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int entry = 8 * t + lane % 4 * 2 + i % 2;
      const bool sees = entry < seen[i / 2];
      const float added = sees && bias != nullptr ? bias[entry] : 0.0F;
      logits[t][i] = sees ? logits[t][i] * scale + added : -INFINITY;
    }
  }
}

}  // namespace
}  // namespace kvc::KVC_CUDA_NAMESPACE
