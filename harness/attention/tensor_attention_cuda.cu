// Both kernels keep one side's numbers in place and stream the other's through shared memory; a lane finds its logits
// in its registers as tensor_cores.h lays them out.
//
// tensor cores: attend_rows_kernel
//
// tensor cores: sum_columns_kernel
#include "harness/attention/tensor_attention_cuda.h"
#include "harness/attention/tensor_cores.h"
#include "harness/attention/tensor_tiles.h"

namespace kvc::KVC_CUDA_NAMESPACE {
namespace {

// What a warp knows of its 16 rows after some entries, each lane of its own two: sums of this lane's columns only.
template <int kSteps>
struct Running {
  float highest[2], sum[2];
  float out[2 * kSteps][4];

  __device__ __forceinline__ void begin() {
    KVC_UNROLL
    for (int r = 0; r < 2; ++r) {
      highest[r] = -INFINITY;
      sum[r] = 0;
    }
    KVC_UNROLL
    for (int t = 0; t < 2 * kSteps; ++t) {
      KVC_UNROLL
      for (int i = 0; i < 4; ++i) out[t][i] = 0;
    }
  }

  // Logits become weights; what was added up before is scaled to the new maximum.
  template <int kTiles>
  __device__ __forceinline__ void weigh(float (&logits)[kTiles][4]) {
    KVC_UNROLL
    for (int r = 0; r < 2; ++r) {
      float most = -INFINITY;
      KVC_UNROLL
      for (int t = 0; t < kTiles; ++t) most = fmaxf(most, fmaxf(logits[t][2 * r], logits[t][2 * r + 1]));
      const float now = fmaxf(highest[r], quad_max(most));
      const float shift = now == -INFINITY ? 0.0F : now;  // -inf - -inf would be NaN
      const float correction = exp2_fast((highest[r] - shift) * kLog2E);
      highest[r] = now;
      float added = 0;
      KVC_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        KVC_UNROLL
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          logits[t][i] = exp2_fast((logits[t][i] - shift) * kLog2E);
          added += logits[t][i];
        }
      }
      sum[r] = sum[r] * correction + added;
      KVC_UNROLL
      for (int t = 0; t < 2 * kSteps; ++t) {
        out[t][2 * r] *= correction;
        out[t][2 * r + 1] *= correction;
      }
    }
  }

  // out += weights (16, 8 kTiles) times a tile of values: c's layout of two neighbours is a's.
  template <int kTiles>
  __device__ __forceinline__ void add_values(const float (&weights)[kTiles][4], const Half* values, int lane) {
    KVC_UNROLL
    for (int t = 0; t < kTiles; t += 2) {
      const uint32_t a[4] = {pair_of(weights[t][0], weights[t][1]), pair_of(weights[t][2], weights[t][3]),
                             pair_of(weights[t + 1][0], weights[t + 1][1]),
                             pair_of(weights[t + 1][2], weights[t + 1][3])};
      KVC_UNROLL
      for (int c = 0; c < 2 * kSteps; c += 2) {
        uint32_t b[4];
        load_matrices_transposed(
            b, row_operand(values + 8 * t * Tiles<kSteps>::kStride + 8 * c, Tiles<kSteps>::kStride, lane));
        multiply_add(out[c], a, b[0], b[1]);
        multiply_add(out[c + 1], a, b[2], b[3]);
      }
    }
  }

  // `row`: the lane's first, of n_rows; results of the block's piece.
  __device__ __forceinline__ void leave(const AttentionShape& shape, int64_t row, int64_t n_rows, int head,
                                        int64_t piece, int lane, const RowResults& results) const {
    KVC_UNROLL
    for (int r = 0; r < 2; ++r) {
      const float total = quad_sum(sum[r]);
      if (row + 8 * r >= n_rows) continue;
      const int d = shape.head_dim;
      const int64_t query = piece + query_of(shape, row + 8 * r, head);
      if (lane % 4 == 0) {
        // A sum that is no number stays visible, in the output too.
        results.log_sum_exp[query] = total == 0 ? -INFINITY : highest[r] + logf(total);
        if (results.row_max != nullptr) results.row_max[query] = highest[r];
        if (results.row_sum != nullptr) results.row_sum[query] = total;
      }
      if (results.output == nullptr) continue;
      const float over = total == 0 ? 0.0F : 1.0F / total;
      KVC_UNROLL
      for (int t = 0; t < 2 * kSteps; ++t) {
        const int column = 8 * t + lane % 4 * 2;
        if (column >= d) continue;
        results.output[query * d + column] = out[t][2 * r] * over;
        results.output[query * d + column + 1] = out[t][2 * r + 1] * over;
      }
    }
  }
};

// One block: kTensorRows rows of one KV head against one piece of its entries. The values of a tile arrive while its
// logits are formed, the keys of the next while the values are added up.
template <int kSteps>
__global__ void __launch_bounds__(kTensorThreads, 2)
    attend_rows_kernel(const AttentionShape shape, const ContextPart part, const Half* queries, int n_pieces,
                       const int64_t* n_visible, const RowResults results) {
  using Tile = Tiles<kSteps>;
  KVC_SHARED_MEMORY(memory);
  Half* query_tile = reinterpret_cast<Half*>(memory);
  Half* key_tile = query_tile + kTensorRows * Tile::kStride;
  Half* value_tile = key_tile + Tile::kEntries * Tile::kStride;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes, lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int head = static_cast<int>(blockIdx.z), d = shape.head_dim;
  const int64_t n_rows = shape.n_tokens * (shape.n_query_heads / shape.n_kv_heads);
  const int64_t block_row = static_cast<int64_t>(blockIdx.x) * kTensorRows, own_row = block_row + warp * 16 + lane / 4;
  const int64_t begin_of_head = part.head_offsets[head], n_entries = part.head_offsets[head + 1] - begin_of_head;
  const Range range = range_of(n_entries, n_pieces);
  const int64_t piece = static_cast<int64_t>(blockIdx.y) * shape.n_tokens * shape.n_query_heads;
  if (range.begin >= range.end) {  // the whole block
    for (int64_t row = own_row; lane % 4 == 0 && row < n_rows && row < own_row + 16; row += 8) {
      const int64_t query = piece + query_of(shape, row, head);
      results.log_sum_exp[query] = -INFINITY;
      if (results.row_max != nullptr) results.row_max[query] = -INFINITY;
      if (results.row_sum != nullptr) results.row_sum[query] = 0;
    }
    return;
  }
  int64_t ends[2] = {range.end, range.end};  // of what this lane's rows see
  for (int r = 0; n_visible != nullptr && r < 2; ++r) {
    const int64_t row = own_row + 8 * r;
    const int64_t seen = row < n_rows ? n_visible[query_of(shape, row, head)] : 0;
    if (seen < ends[r]) ends[r] = seen;
  }
  const Half* keys = static_cast<const Half*>(part.keys) + begin_of_head * d;
  const Half* values = part.values == nullptr ? nullptr : static_cast<const Half*>(part.values) + begin_of_head * d;
  const float* bias = part.bias == nullptr ? nullptr : part.bias + begin_of_head;
  const float scale = 1.0F / sqrtf(static_cast<float>(d));

  copy_queries<kSteps>(shape, queries, block_row, n_rows, head, query_tile);
  copy_tile<kSteps, Tile::kEntries>(keys + range.begin * d, range.end - range.begin, d, key_tile);
  commit_copies();
  Running<kSteps> running;
  running.begin();
  for (int64_t first = range.begin; first < range.end; first += Tile::kEntries) {
    wait_for_copies();
    __syncthreads();  // keys are there, and nobody reads the values before any more
    if (values != nullptr) copy_tile<kSteps, Tile::kEntries>(values + first * d, range.end - first, d, value_tile);
    commit_copies();
    int seen[2];
    KVC_UNROLL
    for (int r = 0; r < 2; ++r) {
      seen[r] = ends[r] - first < Tile::kEntries ? static_cast<int>(ends[r] - first) : Tile::kEntries;
    }
    float logits[Tile::kEntries / 8][4];
    form_logits<kSteps>(query_tile + warp * 16 * Tile::kStride, key_tile, bias == nullptr ? nullptr : bias + first,
                        scale, seen, lane, logits);
    wait_for_copies();
    __syncthreads();  // values are there, and nobody reads the keys any more
    const int64_t next = first + Tile::kEntries;
    if (next < range.end) {
      copy_tile<kSteps, Tile::kEntries>(keys + next * d, range.end - next, d, key_tile);
      commit_copies();
    }
    running.weigh(logits);
    if (values != nullptr) running.add_values(logits, value_tile, lane);
  }
  running.leave(shape, own_row, n_rows, head, piece, lane, results);
}

// --- columns ---

template <ColumnSum kSum>
__device__ __forceinline__ float with(float sum, float weight) {
  if constexpr (kSum == ColumnSum::kSquares) return sum + weight * weight;
  if constexpr (kSum == ColumnSum::kPlain) return sum + weight;
  return weight > sum || weight != weight ? weight : sum;  // what is no number stays visible
}
template <ColumnSum kSum>
__device__ __forceinline__ float of_both(float a, float b) {
  if constexpr (kSum == ColumnSum::kLargest) return b > a || b != b ? b : a;
  return a + b;
}

// Two neighbouring numbers of a row of keys as a register holds them; zeros outside.
__device__ __forceinline__ uint32_t pair_at(const Half* keys, int64_t row, int64_t n_rows, int column, int d) {
  uint32_t pair = 0;
  if (row < n_rows && column < d) memcpy(&pair, keys + row * d + column, sizeof(pair));
  return pair;
}

// One block: kTensorWarps * kKeyTiles * 16 keys of one head, held in registers, against all of its queries.
template <int kSteps, ColumnSum kSum>
__global__ void __launch_bounds__(kTensorThreads, kSteps > 8 ? 2 : 3)
    sum_columns_kernel(const ColumnShape shape, const Half* all_queries, const Half* all_keys, const float* all_bias,
                       const float* all_shifts, const int64_t* all_visible, float* per_key) {
  using Tile = Tiles<kSteps>;
  constexpr int kMine = Tile::kKeyTiles;
  KVC_SHARED_MEMORY(memory);
  Half* tiles = reinterpret_cast<Half*>(memory);
  constexpr int kTileSize = Tile::kQueries * Tile::kStride;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes, lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int d = shape.head_dim;
  const int64_t head = blockIdx.y, n = shape.n_rows, n_entries = shape.n_entries;
  const Half *queries = all_queries + head * n * d, *keys = all_keys + head * n_entries * d;
  const float* shifts = all_shifts + head * n;
  const int64_t* visible = all_visible == nullptr ? nullptr : all_visible + head * n;
  const int64_t first_key = (static_cast<int64_t>(blockIdx.x) * kTensorWarps + warp) * kMine * 16;
  const float scale = 1.0F / sqrtf(static_cast<float>(d));

  uint32_t held[kMine][kSteps][4];
  float bias[kMine][2], total[kMine][2];
  KVC_UNROLL
  for (int m = 0; m < kMine; ++m) {
    const int64_t key = first_key + 16 * m + lane / 4;
    KVC_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      KVC_UNROLL
      for (int i = 0; i < 4; ++i) {
        held[m][k][i] = pair_at(keys, key + i % 2 * 8, n_entries, 16 * k + i / 2 * 8 + lane % 4 * 2, d);
      }
    }
    KVC_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int64_t entry = key + 8 * r;
      const float own = all_bias != nullptr && entry < n_entries ? all_bias[head * n_entries + entry] : 0.0F;
      bias[m][r] = entry < n_entries ? own : -INFINITY;
      total[m][r] = 0;
    }
  }

  copy_tile<kSteps, Tile::kQueries>(queries, n, d, tiles);
  commit_copies();
  int turn = 0;
  for (int64_t first = 0; first < n; first += Tile::kQueries, turn ^= 1) {
    wait_for_copies();
    __syncthreads();  // the tile is there, and nobody reads the other one any more
    const int64_t next = first + Tile::kQueries;
    if (next < n) {
      copy_tile<kSteps, Tile::kQueries>(queries + next * d, n - next, d, tiles + (turn ^ 1) * kTileSize);
      commit_copies();
    }
    float part[kMine][2];  // of this tile: long sums are of short ones
    KVC_UNROLL
    for (int m = 0; m < kMine; ++m) part[m][0] = part[m][1] = 0;
    KVC_UNROLL
    for (int t = 0; t < Tile::kQueries / 8; t += 2) {
      float shift[2][2];  // of this lane's two queries of each operand
      int seen[2][2];     // how many of this warp's keys they see
      float logits[kMine][2][4];
      KVC_UNROLL
      for (int s = 0; s < 2; ++s) {
        KVC_UNROLL
        for (int i = 0; i < 2; ++i) {
          const int64_t query = first + 8 * (t + s) + lane % 4 * 2 + i;
          shift[s][i] = query < n ? shifts[query] : INFINITY;
          seen[s][i] = query < n && visible != nullptr ? static_cast<int>(visible[query] - first_key) : kMine * 16;
        }
        KVC_UNROLL
        for (int m = 0; m < kMine; ++m) {
          KVC_UNROLL
          for (int i = 0; i < 4; ++i) logits[m][s][i] = 0;
        }
      }
      const Half* from = column_operand(tiles + turn * kTileSize + 8 * t * Tile::kStride, Tile::kStride, lane);
      KVC_UNROLL
      for (int k = 0; k < kSteps; ++k) {
        uint32_t b[4];
        load_matrices(b, from + 16 * k);
        KVC_UNROLL
        for (int m = 0; m < kMine; ++m) {
          multiply_add(logits[m][0], held[m][k], b[0], b[1]);
          multiply_add(logits[m][1], held[m][k], b[2], b[3]);
        }
      }
      KVC_UNROLL
      for (int m = 0; m < kMine; ++m) {
        KVC_UNROLL
        for (int i = 0; i < 8; ++i) {
          const int s = i / 4, r = i / 2 % 2, column = i % 2;
          float x = logits[m][s][i % 4] * scale + bias[m][r];
          if (16 * m + lane / 4 + 8 * r >= seen[s][column]) x = -INFINITY;
          part[m][r] = with<kSum>(part[m][r], exp2_fast((x - shift[s][column]) * kLog2E));
        }
      }
    }
    KVC_UNROLL
    for (int m = 0; m < kMine; ++m) {
      KVC_UNROLL
      for (int r = 0; r < 2; ++r) total[m][r] = of_both<kSum>(total[m][r], part[m][r]);
    }
  }
  KVC_UNROLL
  for (int m = 0; m < kMine; ++m) {
    KVC_UNROLL
    for (int r = 0; r < 2; ++r) {
      float sum = of_both<kSum>(total[m][r], __shfl_xor_sync(kAllLanes, total[m][r], 1));
      sum = of_both<kSum>(sum, __shfl_xor_sync(kAllLanes, sum, 2));
      const int64_t key = first_key + 16 * m + lane / 4 + 8 * r;
      if (lane % 4 == 0 && key < n_entries) per_key[head * n_entries + key] = sum;
    }
  }
}

// --- launches ---

template <int kSteps>
const char* attend_steps(const AttentionShape& shape, const ContextPart& part, const void* queries, int n_pieces,
                         const int64_t* n_visible, const RowResults& results, CudaStream stream) {
  using Tile = Tiles<kSteps>;
  const int64_t rows = shape.n_tokens * (shape.n_query_heads / shape.n_kv_heads);
  const dim3 grid(static_cast<unsigned>((rows + kTensorRows - 1) / kTensorRows), static_cast<unsigned>(n_pieces),
                  static_cast<unsigned>(shape.n_kv_heads));
  const size_t shared_bytes = sizeof(Half) * Tile::kStride * (kTensorRows + 2 * Tile::kEntries);
  return launch(attend_rows_kernel<kSteps>, grid, dim3(kTensorThreads), shared_bytes, stream, shape, part,
                static_cast<const Half*>(queries), n_pieces, n_visible, results);
}

template <int kSteps, ColumnSum kSum, class... Rest>
const char* columns_as(const ColumnShape& shape, CudaStream stream, Rest... rest) {
  using Tile = Tiles<kSteps>;
  constexpr int64_t kKeys = int64_t{kTensorWarps} * Tile::kKeyTiles * 16;
  const dim3 grid(static_cast<unsigned>((shape.n_entries + kKeys - 1) / kKeys), static_cast<unsigned>(shape.n_heads));
  const size_t shared_bytes = sizeof(Half) * Tile::kStride * 2 * Tile::kQueries;
  return launch(sum_columns_kernel<kSteps, kSum>, grid, dim3(kTensorThreads), shared_bytes, stream, shape, rest...);
}

template <int kSteps, class... Rest>
const char* columns_steps(const ColumnShape& shape, ColumnSum sum, CudaStream stream, Rest... rest) {
  if (sum == ColumnSum::kSquares) return columns_as<kSteps, ColumnSum::kSquares>(shape, stream, rest...);
  if (sum == ColumnSum::kLargest) return columns_as<kSteps, ColumnSum::kLargest>(shape, stream, rest...);
  return columns_as<kSteps, ColumnSum::kPlain>(shape, stream, rest...);
}

}  // namespace

LaunchCount& column_launches() {
  thread_local LaunchCount counted;
  return counted;
}

bool tensor_cores_take(const AttentionShape& shape, const ContextPart& part, const void* queries) {
  return shape.number == Number::kBfloat16 && part.lengths == nullptr && shape.head_dim % 8 == 0 &&
         shape.head_dim >= 8 && shape.head_dim <= kMaxHeadDim && is_aligned(part.keys) && is_aligned(part.values) &&
         is_aligned(queries);
}

const char* attend_rows(const AttentionShape& shape, const ContextPart& part, const void* queries, int n_pieces,
                        const int64_t* n_visible, const RowResults& results, CudaStream stream) {
  if (!tensor_cores_take(shape, part, queries)) return "numbers, sizes or addresses that tensor cores do not take";
  if (shape.head_dim <= 64) return attend_steps<4>(shape, part, queries, n_pieces, n_visible, results, stream);
  if (shape.head_dim <= 96) return attend_steps<6>(shape, part, queries, n_pieces, n_visible, results, stream);
  if (shape.head_dim <= 128) return attend_steps<8>(shape, part, queries, n_pieces, n_visible, results, stream);
  return attend_steps<16>(shape, part, queries, n_pieces, n_visible, results, stream);
}

const char* sum_columns(const ColumnShape& shape, ColumnSum sum, const void* queries, const void* keys,
                        const float* bias, const float* shift, const int64_t* n_visible, float* per_key,
                        CudaStream stream) {
  if (shape.head_dim % 8 != 0 || shape.head_dim < 8 || shape.head_dim > kMaxHeadDim || !is_aligned(queries) ||
      !is_aligned(keys)) {
    return "sizes or addresses that tensor cores do not take";
  }
  if (shape.n_heads > 65535) return "heads beyond 65535";
  if (shape.n_heads == 0 || shape.n_entries == 0) return nullptr;
  ++column_launches().launches;
  column_launches().bytes += shape.n_heads * (2 * shape.head_dim * (shape.n_rows + shape.n_entries) +
                                              4 * (shape.n_rows + shape.n_entries * (bias != nullptr ? 2 : 1)) +
                                              (n_visible != nullptr ? 8 * shape.n_rows : 0));
  const auto *q = static_cast<const Half*>(queries), *k = static_cast<const Half*>(keys);
  if (shape.head_dim <= 64) return columns_steps<4>(shape, sum, stream, q, k, bias, shift, n_visible, per_key);
  if (shape.head_dim <= 96) return columns_steps<6>(shape, sum, stream, q, k, bias, shift, n_visible, per_key);
  if (shape.head_dim <= 128) return columns_steps<8>(shape, sum, stream, q, k, bias, shift, n_visible, per_key);
  return columns_steps<16>(shape, sum, stream, q, k, bias, shift, n_visible, per_key);
}

}  // namespace kvc::KVC_CUDA_NAMESPACE
