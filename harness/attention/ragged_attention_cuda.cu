// Attention over ragged heads and dense tails, for what tensor cores do not take. One block: up to kWarps * kRows rows
// (a token's query head each) of one KV head against one range of its entries, 32 at a time, in float32: lane = entry
// for the logits, lane = dimension for the sum of values. A row's running maximum and output live in the registers of
// its warp.
#include "harness/attention/cuda_kernel.h"
#include "harness/attention/ragged_attention_cuda.h"
#include "harness/attention/tensor_attention_cuda.h"

namespace kvc::KVC_CUDA_NAMESPACE {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpLanes;
constexpr int kTile = kPieceTile;  // entries at a time
constexpr int kLeastBlocks = 2;    // of a multiprocessor: without it ptxas spills registers to save some

__host__ __device__ constexpr int padded_dim(int head_dim) {
  return (head_dim + 3) / 4 * 4;
}

// Shared memory in floats: queries (rows, padded), keys (kTile, padded + 1: lanes read a column of them), values
// (kTile, lanes' dimensions), weights (kWarps, kTile, kRows).
template <int kRows, int kDims>
__host__ __device__ constexpr int shared_floats(int head_dim) {
  return kWarps * kRows * padded_dim(head_dim) + kTile * kDims * kWarpLanes + kWarps * kTile * kRows +
         kTile * (padded_dim(head_dim) + 1);
}

// What one block works on: rows of one KV head of one sequence, and a range of entries.
struct Job {
  int64_t first_token,
      n_rows;             // rows: tokens from first_token on, times the group
  int64_t first_entry;    // of the head, in the key tensor
  int64_t begin, end;     // entries of the head that this block reads
  int64_t first_visible;  // entries that the head's first row sees; 0 = every
                          // row sees all
};

template <int kRows>
__device__ Job job_of_block(const AttentionShape& shape, const ContextPart& part, int group, int n_pieces) {
  const int head = static_cast<int>(blockIdx.z) % shape.n_kv_heads,
            sequence = static_cast<int>(blockIdx.z) / shape.n_kv_heads;
  Job job{};
  int64_t n_entries = 0;
  const bool tail = part.lengths != nullptr;
  if (tail) {
    const int64_t n_tokens = part.sequence_offsets[sequence + 1] - part.sequence_offsets[sequence];
    job.first_token = part.sequence_offsets[sequence];
    job.n_rows = n_tokens * group;
    job.first_entry = (static_cast<int64_t>(sequence) * shape.n_kv_heads + head) * part.capacity;
    job.first_visible = part.lengths[sequence] + 1;
    n_entries = part.lengths[sequence] + n_tokens;
  } else {
    job.n_rows = shape.n_tokens * group;
    job.first_entry = part.head_offsets[head];
    n_entries = part.head_offsets[head + 1] - part.head_offsets[head];
  }
  // Whole tiles to each piece, as even as tiles allow; shorter heads leave the last pieces empty.
  const int wanted = pieces_for(n_entries), own_pieces = wanted < n_pieces ? wanted : n_pieces;
  if (static_cast<int>(blockIdx.y) >= own_pieces) return job;
  const int64_t n_tiles = (n_entries + kTile - 1) / kTile;
  job.begin = n_tiles * blockIdx.y / own_pieces * kTile;
  job.end = n_tiles * (blockIdx.y + 1) / own_pieces * kTile;
  if (job.end > n_entries) job.end = n_entries;
  if (tail) {  // what the block's last row sees
    int64_t last_row = (static_cast<int64_t>(blockIdx.x) + 1) * kWarps * kRows - 1;
    if (last_row > job.n_rows - 1) last_row = job.n_rows - 1;
    const int64_t seen = job.first_visible + last_row / group;
    if (job.end > seen) job.end = seen;
  }
  return job;
}

// n_rows rows of `size` numbers into float32 rows `stride` apart; rows up to kTile and columns up to `width` are zeros.
template <class T>
__device__ void load_tile(const T* from, int n_rows, int size, bool aligned, float* to, int stride, int width) {
  const int thread = static_cast<int>(threadIdx.x);
  if (aligned) {
    const int packs = size / Pack<T>::kSize;
    for (int i = thread; i < kTile * packs; i += kThreads) {
      const int row = i / packs, column = i % packs * Pack<T>::kSize;
      float* out = to + row * stride + column;
      if (row >= n_rows) {
        for (int k = 0; k < Pack<T>::kSize; ++k) out[k] = 0;
        continue;
      }
      const Pack<T> pack = *reinterpret_cast<const Pack<T>*>(from + static_cast<int64_t>(row) * size + column);
      for (int k = 0; k < Pack<T>::kSize; ++k) out[k] = to_float(pack.x[k]);
    }
  } else {
    for (int i = thread; i < kTile * size; i += kThreads) {
      const int row = i / size, column = i % size;
      to[row * stride + column] = row < n_rows ? to_float(from[static_cast<int64_t>(row) * size + column]) : 0.0F;
    }
  }
  const int rest = width - size;
  for (int i = thread; i < kTile * rest; i += kThreads) to[i / rest * stride + size + i % rest] = 0;
}

// This block's query rows into shared memory, zeros behind the last.
template <class T>
__device__ void load_queries(const T* queries, const AttentionShape& shape, const Job& job, int64_t first_row,
                             int n_rows, int group, int head, float* to) {
  const int padded = padded_dim(shape.head_dim);
  for (int i = static_cast<int>(threadIdx.x); i < n_rows * padded; i += kThreads) {
    const int64_t row = first_row + i / padded;
    const int column = i % padded;
    float x = 0;
    if (row < job.n_rows && column < shape.head_dim) {
      const int64_t query = (job.first_token + row / group) * shape.n_query_heads + head * group + row % group;
      x = to_float(queries[query * shape.head_dim + column]);
    }
    to[i] = x;
  }
}

// Dot products of the warp's query rows with this lane's key.
template <int kRows>
__device__ __forceinline__ void dot_rows(const float* queries, const float* key, int padded, float (&dots)[kRows]) {
  KVC_UNROLL
  for (int r = 0; r < kRows; ++r) dots[r] = 0;
  for (int k = 0; k < padded; k += 4) {
    const float k0 = key[k], k1 = key[k + 1], k2 = key[k + 2], k3 = key[k + 3];
    KVC_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const float4 q = *reinterpret_cast<const float4*>(queries + r * padded + k);
      dots[r] += q.x * k0 + q.y * k1 + q.z * k2 + q.w * k3;
    }
  }
}

// `kDims` numbers of a row's output in each lane: dimensions lane, lane + 32, ...
template <class T, int kRows, int kDims>
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    attend_kernel(const AttentionShape shape, const ContextPart part, const T* queries, int n_pieces, bool aligned,
                  float* output, float* log_sum_exp) {
  KVC_SHARED_MEMORY(memory);
  const int d = shape.head_dim, padded = padded_dim(d), group = shape.n_query_heads / shape.n_kv_heads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes, lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int head = static_cast<int>(blockIdx.z) % shape.n_kv_heads;
  constexpr int kValueStride = kDims * kWarpLanes;
  const Job job = job_of_block<kRows>(shape, part, group, n_pieces);
  const int64_t block_row = static_cast<int64_t>(blockIdx.x) * kWarps * kRows;
  if (block_row >= job.n_rows) return;  // the whole block: no barrier is left behind

  float* query_rows = reinterpret_cast<float*>(memory);
  float* value_tile = query_rows + kWarps * kRows * padded;
  float* weights = value_tile + kTile * kValueStride + warp * kTile * kRows;
  float* key_tile = value_tile + kTile * kValueStride + kWarps * kTile * kRows;
  load_queries(queries, shape, job, block_row, kWarps * kRows, group, head, query_rows);

  const int64_t warp_row = block_row + warp * kRows;
  const bool busy = warp_row < job.n_rows;
  const float scale = 1.0F / sqrtf(static_cast<float>(d));
  float highest[kRows], sum[kRows], out[kRows][kDims];
  KVC_UNROLL
  for (int r = 0; r < kRows; ++r) {
    highest[r] = -INFINITY;
    sum[r] = 0;
    KVC_UNROLL
    for (int i = 0; i < kDims; ++i) out[r][i] = 0;
  }

  for (int64_t tile = job.begin; tile < job.end; tile += kTile) {
    const int n = job.end - tile < kTile ? static_cast<int>(job.end - tile) : kTile;
    const int64_t entry = job.first_entry + tile;
    __syncthreads();  // nobody reads the tile before any more
    load_tile(static_cast<const T*>(part.keys) + entry * d, n, d, aligned, key_tile, padded + 1, padded);
    load_tile(static_cast<const T*>(part.values) + entry * d, n, d, aligned, value_tile, kValueStride, kValueStride);
    __syncthreads();
    if (!busy) continue;

    float dots[kRows];
    dot_rows<kRows>(query_rows + warp * kRows * padded, key_tile + lane * (padded + 1), padded, dots);
    const float bias = part.bias != nullptr && lane < n ? part.bias[entry + lane] : 0.0F;
    KVC_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int64_t row = warp_row + r;
      const bool sees =
          lane < n && row < job.n_rows && (job.first_visible == 0 || tile + lane < job.first_visible + row / group);
      const float logit = sees ? dots[r] * scale + bias : -INFINITY;
      const float new_highest = fmaxf(highest[r], warp_max(logit));
      const float shift = new_highest == -INFINITY ? 0.0F : new_highest;  // -inf - -inf would be NaN
      const float weight = expf(logit - shift), correction = expf(highest[r] - shift);
      highest[r] = new_highest;
      sum[r] = sum[r] * correction + weight;  // of this lane's entries; lanes are added up at the end
      weights[lane * kRows + r] = weight;
      KVC_UNROLL
      for (int i = 0; i < kDims; ++i) out[r][i] *= correction;
    }
    __syncwarp();
    for (int j = 0; j < n; ++j) {
      float value[kDims];
      KVC_UNROLL
      for (int i = 0; i < kDims; ++i) value[i] = value_tile[j * kValueStride + i * kWarpLanes + lane];
      KVC_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const float weight = weights[j * kRows + r];
        KVC_UNROLL
        for (int i = 0; i < kDims; ++i) out[r][i] += weight * value[i];
      }
    }
    __syncwarp();
  }
  if (!busy) return;

  const int64_t piece = static_cast<int64_t>(blockIdx.y) * shape.n_tokens * shape.n_query_heads;
  KVC_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const int64_t row = warp_row + r;
    const float total = warp_sum(sum[r]);
    if (row >= job.n_rows) continue;  // the same for all lanes
    const int64_t query = piece + (job.first_token + row / group) * shape.n_query_heads + head * group + row % group;
    // A sum that is no number stays visible, in the output too.
    if (lane == 0) log_sum_exp[query] = total == 0 ? -INFINITY : highest[r] + logf(total);
    if (total == 0) continue;
    KVC_UNROLL
    for (int i = 0; i < kDims; ++i) {
      const int column = i * kWarpLanes + lane;
      if (column < d) output[query * d + column] = out[r][i] / total;
    }
  }
}

// A warp for each row.
template <class T>
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    merge_kernel(int64_t n_rows, int head_dim, int n_pieces, const float* piece_output, const float* piece_log_sum_exp,
                 T* output, float* log_sum_exp) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpLanes;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  if (row >= n_rows) return;
  float highest = -INFINITY;
  for (int p = 0; p < n_pieces; ++p) highest = fmaxf(highest, piece_log_sum_exp[p * n_rows + row]);
  const float shift = highest == -INFINITY ? 0.0F : highest;
  float total = 0;
  for (int p = 0; p < n_pieces; ++p) total += expf(piece_log_sum_exp[p * n_rows + row] - shift);
  for (int column = lane; column < head_dim; column += kWarpLanes) {
    float x = 0;
    for (int p = 0; p < n_pieces; ++p) {
      const float weight = expf(piece_log_sum_exp[p * n_rows + row] - shift);
      // Where a piece saw nothing it wrote nothing: what lies there must not be touched.
      if (!(weight == 0)) x += weight / total * piece_output[(p * n_rows + row) * head_dim + column];
    }
    store(output + row * head_dim + column, x);
  }
  if (lane == 0 && log_sum_exp != nullptr) log_sum_exp[row] = total == 0 ? -INFINITY : shift + logf(total);
}

// A block for each new token.
template <class T>
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    write_kernel(const AttentionShape shape, const ContextPart part, const T* new_keys, int64_t key_stride,
                 const T* new_values, int64_t value_stride) {
  const int64_t token = blockIdx.x;
  if (token >= part.sequence_offsets[part.batch]) return;
  int64_t sequence = 0,
          behind = part.batch;  // token lies in a sequence of [sequence, behind)
  while (behind - sequence > 1) {
    const int64_t middle = (sequence + behind) / 2;
    (part.sequence_offsets[middle] <= token ? sequence : behind) = middle;
  }
  const int64_t place = part.lengths[sequence] + token - part.sequence_offsets[sequence];
  if (place >= part.capacity) return;
  auto* keys = static_cast<T*>(const_cast<void*>(part.keys));
  auto* values = static_cast<T*>(const_cast<void*>(part.values));
  const int d = shape.head_dim;
  for (int i = static_cast<int>(threadIdx.x); i < shape.n_kv_heads * d; i += kThreads) {
    const int64_t to = ((sequence * shape.n_kv_heads + i / d) * part.capacity + place) * d + i % d;
    keys[to] = new_keys[token * key_stride + i];
    values[to] = new_values[token * value_stride + i];
  }
}

// Rows of one KV head that a warp takes at a time: few, where a step has few rows. Wide heads take fewer: a block's
// shared memory must fit into the 99 KiB of the smallest GPUs served.
constexpr int kFewRows = 2;
constexpr int many_rows(int head_dim) {
  return head_dim > 128 ? 4 : 8;
}

int64_t most_rows(const AttentionShape& shape, const ContextPart& part) {
  return part.most_tokens * (shape.n_query_heads / shape.n_kv_heads);
}
bool takes_few(const AttentionShape& shape, const ContextPart& part) {
  return most_rows(shape, part) <= kWarps * kFewRows;
}
int64_t row_tiles(const AttentionShape& shape, const ContextPart& part) {
  const int64_t rows = kWarps * (takes_few(shape, part) ? kFewRows : many_rows(shape.head_dim));
  return (most_rows(shape, part) + rows - 1) / rows;
}

template <class T, int kRows, int kDims>
const char* attend_as(const AttentionShape& shape, const ContextPart& part, const void* queries, int n_pieces,
                      float* output, float* log_sum_exp, CudaStream stream) {
  const dim3 grid(static_cast<unsigned>(row_tiles(shape, part)), static_cast<unsigned>(n_pieces),
                  static_cast<unsigned>(part.batch * shape.n_kv_heads));
  const bool aligned = shape.head_dim % Pack<T>::kSize == 0 && is_aligned(part.keys) && is_aligned(part.values);
  return launch(attend_kernel<T, kRows, kDims>, grid, dim3(kThreads),
                shared_floats<kRows, kDims>(shape.head_dim) * sizeof(float), stream, shape, part,
                static_cast<const T*>(queries), n_pieces, aligned, output, log_sum_exp);
}

template <class T, int kDims, class... Rest>
const char* attend_rows(const AttentionShape& shape, const ContextPart& part, Rest... rest) {
  if (takes_few(shape, part)) return attend_as<T, kFewRows, kDims>(shape, part, rest...);
  return attend_as<T, many_rows(kDims * kWarpLanes), kDims>(shape, part, rest...);
}

template <class T, class... Rest>
const char* attend_dims(const AttentionShape& shape, Rest... rest) {
  if (shape.head_dim <= 32) return attend_rows<T, 1>(shape, rest...);
  if (shape.head_dim <= 64) return attend_rows<T, 2>(shape, rest...);
  if (shape.head_dim <= 96) return attend_rows<T, 3>(shape, rest...);
  if (shape.head_dim <= 128) return attend_rows<T, 4>(shape, rest...);
  return attend_rows<T, 8>(shape, rest...);
}

const char* refusal(const AttentionShape& shape, const ContextPart& part) {
  if (shape.head_dim < 1 || shape.head_dim > kMaxHeadDim) return "head dimension outside 1..256";
  if (shape.n_kv_heads < 1 || shape.n_kv_heads > kMaxKvHeads) return "KV heads outside 1..128";
  if (shape.n_query_heads % shape.n_kv_heads != 0) return "query heads do not share KV heads evenly";
  if (part.batch * shape.n_kv_heads > 65535) return "batch times KV heads beyond 65535";
  return nullptr;
}

int64_t number_bytes(const AttentionShape& shape) {
  return shape.number == Number::kFloat32 ? 4 : 2;
}

void count_attention(int64_t bytes) {
  ++attention_launches().launches;
  attention_launches().bytes += bytes;
}

// Queries and outputs of each piece, and the part's entries once for every tile of rows.
int64_t attend_bytes(const AttentionShape& shape, const ContextPart& part, int n_pieces, int64_t tiles) {
  const bool is_prefix = part.lengths == nullptr;
  const int64_t entries = is_prefix ? part.head_offsets[shape.n_kv_heads] - part.head_offsets[0]
                                    : part.batch * shape.n_kv_heads * part.most_entries;
  const int64_t an_entry = 2 * shape.head_dim * number_bytes(shape) + (part.bias != nullptr ? 4 : 0);
  const int64_t rows = shape.n_tokens * shape.n_query_heads;
  return entries * an_entry * tiles +
         n_pieces * rows * (shape.head_dim * number_bytes(shape) + 4 * (shape.head_dim + 1));
}

}  // namespace

LaunchCount& attention_launches() {
  thread_local LaunchCount counted;
  return counted;
}

int pieces_of(const ContextPart& part) {
  return pieces_for(part.most_entries);
}

const char* attend(const AttentionShape& shape, const ContextPart& part, const void* queries, int n_pieces,
                   float* output, float* log_sum_exp, CudaStream stream) {
  if (const char* why = refusal(shape, part)) return why;
  if (most_rows(shape, part) == 0) return nullptr;
  if (tensor_cores_take(shape, part, queries)) {
    count_attention(attend_bytes(shape, part, n_pieces, (most_rows(shape, part) + kTensorRows - 1) / kTensorRows));
    return attend_rows(shape, part, queries, n_pieces, nullptr, {output, log_sum_exp, nullptr}, stream);
  }
  count_attention(attend_bytes(shape, part, n_pieces, row_tiles(shape, part)));
  if (shape.number == Number::kFloat32) {
    return attend_dims<float>(shape, part, queries, n_pieces, output, log_sum_exp, stream);
  }
  return attend_dims<__nv_bfloat16>(shape, part, queries, n_pieces, output, log_sum_exp, stream);
}

const char* merge_pieces(const AttentionShape& shape, int n_pieces, const float* piece_output,
                         const float* piece_log_sum_exp, Number number, void* output, float* log_sum_exp,
                         CudaStream stream) {
  const int64_t n_rows = shape.n_tokens * shape.n_query_heads;
  if (n_rows == 0) return nullptr;
  count_attention(n_rows *
                  (n_pieces * 4 * (shape.head_dim + 1) + shape.head_dim * (number == Number::kFloat32 ? 4 : 2)));
  const dim3 grid(static_cast<unsigned>((n_rows + kWarps - 1) / kWarps));
  if (number == Number::kFloat32) {
    return launch(merge_kernel<float>, grid, dim3(kThreads), 0, stream, n_rows, shape.head_dim, n_pieces, piece_output,
                  piece_log_sum_exp, static_cast<float*>(output), log_sum_exp);
  }
  return launch(merge_kernel<__nv_bfloat16>, grid, dim3(kThreads), 0, stream, n_rows, shape.head_dim, n_pieces,
                piece_output, piece_log_sum_exp, static_cast<__nv_bfloat16*>(output), log_sum_exp);
}

namespace {

template <class T>
const char* write_as(const AttentionShape& shape, const ContextPart& part, const void* new_keys, int64_t key_stride,
                     const void* new_values, int64_t value_stride, CudaStream stream) {
  return launch(write_kernel<T>, dim3(static_cast<unsigned>(shape.n_tokens)), dim3(kThreads), 0, stream, shape, part,
                static_cast<const T*>(new_keys), key_stride, static_cast<const T*>(new_values), value_stride);
}

}  // namespace

const char* write_tails(const AttentionShape& shape, const ContextPart& part, const void* new_keys, int64_t key_stride,
                        const void* new_values, int64_t value_stride, CudaStream stream) {
  if (shape.n_tokens == 0) return nullptr;
  count_attention(4 * shape.n_tokens * shape.n_kv_heads * shape.head_dim * number_bytes(shape));
  const auto write = shape.number == Number::kFloat32 ? write_as<float> : write_as<__nv_bfloat16>;
  return write(shape, part, new_keys, key_stride, new_values, value_stride, stream);
}

}  // namespace kvc::KVC_CUDA_NAMESPACE
