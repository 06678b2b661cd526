// The matching pursuit's kernels: see the header for what each reads.
#include "harness/attention/cuda_kernel.h"
#include "harness/attention/pursuit_choice_kernels.h"
#include "harness/attention/pursuit_cuda.h"

// In a namespace of its own: tests compile several files of kernels in one.
namespace kvc::KVC_CUDA_NAMESPACE::pursuit {
namespace {

// A warp's columns of 32 queries; each of the block's warps adds up every eighth pick.
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    residual_kernel(const PursuitHeads heads, const PursuitNumbers numbers, bool all) {
  __shared__ double parts[kThreads];
  const int head = static_cast<int>(blockIdx.y), lane = lane_of_thread(), warp = warp_of_thread();
  const int64_t n = heads.n_queries, query = static_cast<int64_t>(blockIdx.x) * kWarpLanes + lane;
  const bool lives = all || numbers.picks[head] > 0;
  const int rows = lives ? numbers.rows[head] : 0;
  const int64_t* order = heads.order + head * heads.room;
  const double* weights = heads.weights_before + head * heads.room;
  const float* table = heads.table + heads.first_row[head] * n + query;
  double sum = 0;
  if (query < n) {
    constexpr int kTogether = 4;  // reads under way
    for (int i = warp; i < rows; i += kTogether * kWarps) {
      KVC_UNROLL
      for (int k = 0; k < kTogether; ++k) {
        const int row = i + k * kWarps;
        if (row < rows) sum += weights[row] * static_cast<double>(table[order[row] * n]);
      }
    }
  }
  parts[threadIdx.x] = sum;
  __syncthreads();
  if (warp != 0 || query >= heads.padded) return;
  double rest = lives && query < n ? heads.goal[head * n + query] : 0.0;
  for (int w = 0; w < kWarps; ++w) rest -= parts[w * kWarpLanes + lane];
  if (query < n) heads.residual[head * n + query] = rest;
  if (heads.residual32 != nullptr) heads.residual32[head * heads.padded + query] = static_cast<float>(rest);
}

// A warp takes kGramRows of the columns that the i-th pick of this iteration is multiplied with. Behind those of the
// earlier picks stand its own and y.
constexpr int kGramRows = 4;

__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    gram_kernel(const PursuitHeads heads, const PursuitNumbers numbers, int i) {
  __shared__ int found;
  const int head = static_cast<int>(blockIdx.y), lane = lane_of_thread(), picks = numbers.picks[head];
  const bool first_thread = blockIdx.x == 0 && threadIdx.x == 0;
  if (picks == 0 && i == 0 && first_thread) heads.least[head] = INFINITY;
  if (i >= picks) return;
  const int64_t n = heads.n_queries, of_head = static_cast<int64_t>(head) * heads.n_candidates;
  const int place = place_of(heads.heights + of_head, heads.n_candidates, i, &found);
  const int64_t key = heads.candidates[of_head + place];
  const int row = numbers.rows[head] + i;
  if (first_thread) {
    heads.order[head * heads.room + row] = key;
    heads.taken[head * heads.n_keys + key] = true;
    if (i + 1 == picks) heads.least[head] = heads.heights[of_head + place];
  }
  const int begin = (static_cast<int>(blockIdx.x) * kWarps + warp_of_thread()) * kGramRows;
  if (begin > row + 1) return;
  const float* column = column_of(heads, head, key);
  double* gram = heads.gram + head * (heads.room + 1);
  const float* others[kGramRows];
  double sums[kGramRows];
  KVC_UNROLL
  for (int r = 0; r < kGramRows; ++r) {
    others[r] = begin + r < row ? column_of(heads, head, heads.order[head * heads.room + begin + r]) : column;
    sums[r] = 0;
  }
  for (int64_t q = lane; q < n; q += kWarpLanes) {
    const auto x = static_cast<double>(column[q]);
    KVC_UNROLL
    for (int r = 0; r < kGramRows; ++r) sums[r] += x * static_cast<double>(others[r][q]);
  }
  KVC_UNROLL
  for (int r = 0; r < kGramRows; ++r) {
    const double sum = warp_sum(sums[r]);
    if (lane == 0 && begin + r <= row) gram[begin + r] = sum;
  }
  if (begin + kGramRows <= row + 1) return;  // the warp with the last of them adds the product with y
  double moment = 0;
  for (int64_t q = lane; q < n; q += kWarpLanes) moment += static_cast<double>(column[q]) * heads.goal[head * n + q];
  moment = warp_sum(moment);
  if (lane == 0) gram[row + 1] = moment;
}

// A block takes kFactorRows of M: M times the products (factor), then the block's part of factor^T M.
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    factor_kernel(const PursuitHeads heads, const PursuitNumbers numbers, int i) {
  __shared__ double factors[kFactorRows];
  const int head = static_cast<int>(blockIdx.y), lane = lane_of_thread(), warp = warp_of_thread();
  const int row = numbers.rows[head] + i, begin = static_cast<int>(blockIdx.x) * kFactorRows;
  if (i >= numbers.picks[head] || begin >= row) return;
  const int end = begin + kFactorRows < row ? begin + kFactorRows : row;
  const double* inverse = heads.inverse + head * heads.room * heads.room;
  const double* gram = heads.gram + head * (heads.room + 1);
  for (int r = begin + warp; r < end; r += kWarps) {
    double sum = 0;
    for (int j = lane; j <= r; j += kWarpLanes) sum += inverse[r * heads.room + j] * gram[j];
    sum = warp_sum(sum);
    if (lane == 0) {
      factors[r - begin] = sum;
      heads.factor[head * heads.room + r] = sum;
    }
  }
  __syncthreads();
  const int64_t n_parts = (heads.room + kFactorRows - 1) / kFactorRows;
  double* partial = heads.partial + (head * n_parts + blockIdx.x) * heads.room;
  for (int j = static_cast<int>(threadIdx.x); j < end; j += kThreads) {
    double sum = 0;
    for (int r = j > begin ? j : begin; r < end; ++r) sum += factors[r - begin] * inverse[r * heads.room + j];
    partial[j] = sum;
  }
}

// A thread for each row of the weights, and column of M's new row. A head that picks nothing (any more) keeps what it
// had.
__global__ void __launch_bounds__(kThreads, kLeastBlocks)
    append_kernel(const PursuitHeads heads, const PursuitNumbers numbers, int i) {
  __shared__ double sums[kWarps];
  const int head = static_cast<int>(blockIdx.y), picks = numbers.picks[head], row = numbers.rows[head] + i;
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, room = heads.room, own = head * room + j;
  const double *weights_before = i == 0 ? heads.weights_before : heads.weights,
               *free_before = i == 0 ? heads.free_before : heads.free;
  if (i >= picks) {
    if (i > 0 || j >= room) return;
    heads.weights[own] = weights_before[own];
    heads.free[own] = free_before[own];
    return;
  }
  const double *factor = heads.factor + head * room, *gram = heads.gram + head * (room + 1);
  double squares = 0, moments = 0;
  for (int r = static_cast<int>(threadIdx.x); r < row; r += kThreads) {
    squares += factor[r] * factor[r];
    moments += factor[r] * heads.forward[head * room + r];
  }
  squares = block_sum(squares, sums);
  moments = block_sum(moments, sums);
  const double rest = gram[row] - squares;
  const bool independent = rest > gram[row] * kDependent;
  const double scale = independent ? 1.0 / sqrt(rest) : 0.0, forward = (gram[row + 1] - moments) * scale;
  if (j >= room) return;
  double inverse = j == row ? scale : 0.0;
  if (j < row) {
    const int64_t n_parts = (room + kFactorRows - 1) / kFactorRows, last = (row + kFactorRows - 1) / kFactorRows;
    const double* partial = heads.partial + head * n_parts * room + j;
    double sum = 0;
    for (int64_t p = j / kFactorRows; p < last; ++p) sum += partial[p * room];
    inverse = -scale * sum;
  }
  bool dependent = !independent;
  if (j < row) dependent = heads.dependent[own];
  double weight = 0, free = 0;  // zeros behind the picks
  if (j <= row) {
    free = (j < row ? free_before[own] : 0.0) + inverse * forward;
    weight = j < row ? weights_before[own] : heads.lower;
    heads.inverse[(head * room + row) * room + j] = inverse;
    if (solves(numbers, head) && i + 1 == picks) {
      weight = free < heads.lower ? heads.lower : free > heads.upper ? heads.upper : free;
      if (dependent) weight = heads.lower;
    }
  }
  heads.weights[own] = weight;
  heads.free[own] = free;
  if (j != row) return;
  heads.forward[own] = forward;
  heads.dependent[own] = dependent;
  heads.cuts[own] = heads.n_cut[head];
}

dim3 grid_of(const PursuitHeads& heads, int64_t parts, int64_t of_each) {
  return {static_cast<unsigned>((parts + of_each - 1) / of_each), static_cast<unsigned>(heads.n_heads)};
}

const char* refusal(const PursuitHeads& heads, const PursuitNumbers& numbers) {
  if (heads.n_heads < 1 || heads.n_heads > kMostPursuitHeads) return "heads outside 1..384";
  if (heads.n_keys > INT32_MAX || heads.room > INT32_MAX) return "more keys than int32 counts";
  for (int h = 0; h < heads.n_heads; ++h) {
    if (numbers.rows[h] < 0 || numbers.rows[h] + numbers.picks[h] > heads.room) return "more picks than there is room";
    if ((numbers.flags[h] & kScans) != 0 && heads.coarse == nullptr) return "a scan without a coarse table";
  }
  return nullptr;
}

// Of the picks so far (or, with all, of everything) of heads that pick something.
template <class Of>
int64_t sum_over(const PursuitHeads& heads, const PursuitNumbers& numbers, bool all, const Of& of) {
  int64_t sum = 0;
  for (int h = 0; h < heads.n_heads; ++h) {
    if (all || numbers.picks[h] > 0) sum += of(int64_t{numbers.rows[h]}, int64_t{numbers.picks[h]});
  }
  return sum;
}

int largest(const int32_t* numbers, int n) {
  int most = 0;
  for (int h = 0; h < n; ++h) most = numbers[h] > most ? numbers[h] : most;
  return most;
}

void count_pursuit(int64_t launches, int64_t bytes) {
  pursuit_launches().launches += launches;
  pursuit_launches().bytes += bytes;
}

const char* residual_of(const PursuitHeads& heads, const PursuitNumbers& numbers, bool all, CudaStream stream) {
  const int64_t n = heads.n_queries;
  count_pursuit(1, sum_over(heads, numbers, all, [&](int64_t rows, int64_t) { return 4 * n * rows + 20 * n; }));
  return launch(residual_kernel, grid_of(heads, heads.padded, kWarpLanes), dim3(kThreads), 0, stream, heads, numbers,
                all);
}

// What correlations and the choice among them read and write.
int64_t choice_bytes(const PursuitHeads& heads, const PursuitNumbers& numbers) {
  const int64_t n = heads.n_queries, candidates = heads.n_candidates * (4 * n + 16) + 12 * n;
  int64_t sum = 0;
  for (int h = 0; h < heads.n_heads; ++h) {
    if (numbers.picks[h] == 0) continue;
    const bool all = (numbers.flags[h] & kScans) != 0;
    sum += candidates + (all ? heads.n_keys * (heads.padded + 13) : heads.n_at_hand * (4 * n + 17));
  }
  return sum;
}

// What the i-th pick of an iteration reads and writes: its products with the columns before it, half of M twice, the
// partial sums, weights and the new row.
int64_t pick_bytes(const PursuitHeads& heads, const PursuitNumbers& numbers, int i) {
  return sum_over(heads, numbers, false, [&](int64_t rows, int64_t picks) {
    const int64_t t = rows + i, n = heads.n_queries, partial = t * (t / kFactorRows + 1) * 8;
    return i >= picks ? 0 : 4 * n * (t + 1) + 12 * n + 8 * t * t + partial + 8 * 8 * t;
  });
}

}  // namespace
}  // namespace kvc::KVC_CUDA_NAMESPACE::pursuit

namespace kvc::KVC_CUDA_NAMESPACE {

LaunchCount& pursuit_launches() {
  thread_local LaunchCount counted;
  return counted;
}

const char* pursuit_residual(const PursuitHeads& heads, const PursuitNumbers& numbers, CudaStream stream) {
  if (const char* why = pursuit::refusal(heads, numbers)) return why;
  return pursuit::residual_of(heads, numbers, true, stream);
}

const char* pursuit_iteration(const PursuitHeads& heads, const PursuitNumbers& numbers, CudaStream stream) {
  if (const char* why = pursuit::refusal(heads, numbers)) return why;
  const int most_rows = pursuit::largest(numbers.rows, heads.n_heads),
            most_picks = pursuit::largest(numbers.picks, heads.n_heads);
  if (most_picks > heads.n_candidates || heads.n_candidates > kMostCandidates || heads.n_candidates > heads.n_at_hand) {
    return "candidates outside what a block compares";
  }
  if (const char* why = pursuit::residual_of(heads, numbers, false, stream)) return why;
  if (!is_aligned(heads.residual32) || !is_aligned(heads.coarse)) return "rows that do not begin at 16 bytes";
  pursuit::count_pursuit(2, pursuit::choice_bytes(heads, numbers));
  const bool aligned = heads.n_queries % 4 == 0 && is_aligned(heads.table);
  if (const char* why = launch(pursuit::correlate_kernel, pursuit::grid_of(heads, heads.n_at_hand, pursuit::kWarps),
                               dim3(pursuit::kThreads), 0, stream, heads, numbers, aligned)) {
    return why;
  }
  if (const char* why = launch(pursuit::choose_kernel, pursuit::grid_of(heads, heads.n_candidates, pursuit::kWarps),
                               dim3(pursuit::kThreads), 0, stream, heads, numbers)) {
    return why;
  }
  for (int i = 0; i < most_picks; ++i) {
    pursuit::count_pursuit(3, pursuit::pick_bytes(heads, numbers, i));
    if (const char* why = launch(pursuit::gram_kernel,
                                 pursuit::grid_of(heads, most_rows + i + 2, pursuit::kWarps * pursuit::kGramRows),
                                 dim3(pursuit::kThreads), 0, stream, heads, numbers, i)) {
      return why;
    }
    // At least one block, though nothing is there to be multiplied with.
    if (const char* why = launch(pursuit::factor_kernel, pursuit::grid_of(heads, most_rows + i + 1, kFactorRows),
                                 dim3(pursuit::kThreads), 0, stream, heads, numbers, i)) {
      return why;
    }
    if (const char* why = launch(pursuit::append_kernel, pursuit::grid_of(heads, heads.room, pursuit::kThreads),
                                 dim3(pursuit::kThreads), 0, stream, heads, numbers, i)) {
      return why;
    }
  }
  return nullptr;
}

}  // namespace kvc::KVC_CUDA_NAMESPACE
