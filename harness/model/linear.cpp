// Letters: M rows of x, N rows of W, K numbers in each.
#include "harness/model/linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "harness/math/float_product.h"
#include "harness/model/vector_clones.h"

namespace kvc {

namespace {

using vector::Bf16;
using vector::load;
using vector::store;

constexpr int64_t kTileRows = 8;  // weight rows at a time
constexpr int64_t kQuad = 4;      // of them beside several rows of x

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

// The sums of four vectors' lanes, each a tree of halves: one shuffle network instead of four chains of additions.
template <int Lanes, class Vector>
KVC_INLINE Four lane_sums(const Vector* sums) {
  Four part[kQuad];
#pragma GCC unroll 4
  for (int r = 0; r < kQuad; ++r) {
    alignas(64) float lanes[Lanes];
    __builtin_memcpy(lanes, sums + r, sizeof(lanes));
    Four quarters[Lanes / 4];
    __builtin_memcpy(quarters, lanes, sizeof(lanes));
#pragma GCC unroll 4
    for (int step = Lanes / 8; step > 0; step /= 2) {
#pragma GCC unroll 4
      for (int i = 0; i < step; ++i) quarters[i] += quarters[i + step];
    }
    part[r] = quarters[0];
  }
  const Four low01 =
      __builtin_shufflevector(part[0], part[1], 0, 4, 1, 5) + __builtin_shufflevector(part[0], part[1], 2, 6, 3, 7);
  const Four low23 =
      __builtin_shufflevector(part[2], part[3], 0, 4, 1, 5) + __builtin_shufflevector(part[2], part[3], 2, 6, 3, 7);
  return __builtin_shufflevector(low01, low23, 0, 1, 4, 5) + __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
}

// Sums of R x C dot products of length `size`, `Lanes` numbers at a time. The order of additions in one dot product
// depends on neither R nor C: a row's result is the same in any batch. `ahead` bytes beyond each number read, the next
// tile's weights are asked for: rows are too short for the processor to guess them. 0: nothing is asked for.
template <int Lanes, int R, int C>
KVC_INLINE void tile(const float* const* weight, const float* rows, int64_t size, int64_t ahead, float* out) {
  typedef float Vector __attribute__((vector_size(Lanes * sizeof(float)), aligned(4), may_alias));
  Vector sums[C][R] = {};
  int64_t k = 0;
  for (; k + Lanes <= size; k += Lanes) {
    Vector x[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) x[c] = *reinterpret_cast<const Vector*>(rows + c * size + k);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      if (ahead != 0) __builtin_prefetch(reinterpret_cast<const char*>(weight[r] + k) + ahead);
      const Vector w = *reinterpret_cast<const Vector*>(weight[r] + k);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sums[c][r] += w * x[c];
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) {
#pragma GCC unroll 2
    for (int quad = 0; quad < R; quad += kQuad) {
      Four total = lane_sums<Lanes>(sums[c] + quad);
      for (int64_t rest = k; rest < size; ++rest) {
        for (int r = 0; r < kQuad; ++r) total[r] += weight[quad + r][rest] * rows[c * size + rest];
      }
      *reinterpret_cast<Four*>(out + c * kTileRows + quad) = total;
    }
  }
}

template <int Lanes, int C>
KVC_INLINE void two_quads(const float* const* weight, const float* rows, int64_t size, int64_t ahead, float* out) {
  tile<Lanes, kQuad, C>(weight, rows, size, ahead, out);
  tile<Lanes, kQuad, C>(weight + kQuad, rows, size, ahead, out + kQuad);
}

// out (M, kTileRows) = rows (M, K) times kTileRows weight rows. The first rows ask for the next tile, the others find
// this one in the cache.
template <int Lanes, int C>
KVC_INLINE void whole_tile(const float* const* weight, const float* rows, int64_t n_rows, int64_t size, int64_t ahead,
                           float* out) {
  int64_t m = 0;
  for (; m + C <= n_rows; m += C, ahead = 0)
    two_quads<Lanes, C>(weight, rows + m * size, size, ahead, out + m * kTileRows);
  for (; m + 2 <= n_rows; m += 2, ahead = 0)
    two_quads<Lanes, 2>(weight, rows + m * size, size, ahead, out + m * kTileRows);
  for (; m < n_rows; ++m, ahead = 0)
    tile<Lanes, kTileRows, 1>(weight, rows + m * size, size, ahead, out + m * kTileRows);
}

// `n_weight_rows` rows of W, first one `first`, times all rows: out (M, N) at columns first .. first + n_weight_rows.
// `rows` are float32 whatever T is; scratch (kTileRows K and kTileRows M floats) is the caller's.
template <int Lanes, int C, class T, class Out>
KVC_INLINE void weight_rows(const T* weight, const T* bias, int64_t first, int64_t n_weight_rows, const float* rows,
                            int64_t n_rows, int64_t size, Out* out, int64_t out_stride, float* wide, float* block) {
  for (int64_t n = first; n < first + n_weight_rows; n += kTileRows) {
    const int64_t count = std::min<int64_t>(kTileRows, first + n_weight_rows - n);
    const float* pointers[kTileRows];
    for (int64_t r = 0; r < kTileRows; ++r) {
      const T* row = weight + (n + std::min(r, count - 1)) * size;  // the last block repeats its last row
      if constexpr (std::is_same_v<T, float>) {
        pointers[r] = row;
      } else {
        float* copy = wide + r * size;
        for (int64_t k = 0; k < size; ++k) copy[k] = load(row + k);
        pointers[r] = copy;
      }
    }
    const bool last = n + kTileRows >= first + n_weight_rows;
    const int64_t ahead = std::is_same_v<T, float> && !last ? kTileRows * size * int64_t{sizeof(float)} : 0;
    whole_tile<Lanes, C>(pointers, rows, n_rows, size, ahead, block);
    for (int64_t m = 0; m < n_rows; ++m) {
      for (int64_t r = 0; r < count; ++r) {
        const float sum = block[m * kTileRows + r] + (bias == nullptr ? 0.0F : load(bias + n + r));
        store(out + m * out_stride + n + r, sum);
      }
    }
  }
}

#define KVC_WEIGHT_ROWS(attribute, lanes, columns, T, Out)                                                             \
  attribute void few_rows(const T* weight, const T* bias, int64_t first, int64_t n_weight_rows, const float* rows,     \
                          int64_t n_rows, int64_t size, Out* out, int64_t out_stride, float* wide, float* block) {     \
    weight_rows<lanes, columns>(weight, bias, first, n_weight_rows, rows, n_rows, size, out, out_stride, wide, block); \
  }
#define KVC_WEIGHT_ROWS_TYPES(attribute, lanes, columns)   \
  KVC_WEIGHT_ROWS(attribute, lanes, columns, float, float) \
  KVC_WEIGHT_ROWS(attribute, lanes, columns, Bf16, Bf16)   \
  KVC_WEIGHT_ROWS(attribute, lanes, columns, Bf16, float)

// As many columns as the vector registers hold beside a weight and the x of each column: 16 registers of 8, or 32
// of 16.
#ifdef KVC_VECTOR_VERSIONS
KVC_WEIGHT_ROWS_TYPES(__attribute__((target("arch=x86-64-v4"))), 16, 5)
KVC_WEIGHT_ROWS_TYPES(__attribute__((target("arch=x86-64-v3"))), 8, 3)
KVC_WEIGHT_ROWS_TYPES(__attribute__((target("default"))), 4, 2)
#else
KVC_WEIGHT_ROWS_TYPES(, 8, 3)
#endif
#undef KVC_WEIGHT_ROWS
#undef KVC_WEIGHT_ROWS_TYPES

template <class T, class Out>
void multiply_few(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& bias, at::Tensor& out) {
  const int64_t n_rows = rows.size(0), size = rows.size(1), width = weight.size(0);
  const at::Tensor wide_rows = rows.to(at::kFloat);
  const auto* x = wide_rows.const_data_ptr<float>();
  const auto* w = static_cast<const T*>(weight.data_ptr());
  const auto* b = bias.defined() ? static_cast<const T*>(bias.data_ptr()) : nullptr;
  auto* y = static_cast<Out*>(out.data_ptr());
  // In units of whole tiles, so that threads never share one. At least 64k products a thread.
  const int64_t tiles = (width + kTileRows - 1) / kTileRows;
  const int64_t grain = std::max<int64_t>(1, 65536 / (n_rows * size * kTileRows + 1));
  at::parallel_for(0, tiles, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(static_cast<size_t>(kTileRows * (size + n_rows)));
    const int64_t first = begin * kTileRows;
    few_rows(w, b, first, std::min(end * kTileRows, width) - first, x, n_rows, size, y, width, scratch.data(),
             scratch.data() + kTileRows * size);
  });
}

bool suits_few_rows(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& bias) {
  return rows.is_cpu() && rows.size(0) <= kFewRows && rows.size(0) > 0 && rows.is_contiguous() &&
         weight.is_contiguous() && (!bias.defined() || bias.is_contiguous()) &&
         weight.scalar_type() == rows.scalar_type() && (!bias.defined() || bias.scalar_type() == rows.scalar_type()) &&
         has_few_rows_kernel(rows.scalar_type());
}

// Without vector instructions for it, LibTorch multiplies bfloat16 matrices an order of magnitude slower than float32
// ones.
bool has_fast_bfloat16() {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool fast = __builtin_cpu_supports("avx512bw") != 0;
  return fast;
#else
  return true;
#endif
}

}  // namespace

bool has_few_rows_kernel(at::ScalarType dtype) {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool multiplies_bfloat16 = __builtin_cpu_supports("avx512bf16") != 0;
#else
  constexpr bool multiplies_bfloat16 = true;  // not known: left to LibTorch
#endif
  return dtype == at::kFloat || (dtype == at::kBFloat16 && !multiplies_bfloat16);
}

at::Tensor project(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& bias) {
  if (suits_few_rows(rows, weight, bias)) {
    at::Tensor out = at::empty({rows.size(0), weight.size(0)}, rows.options());
    if (rows.scalar_type() == at::kFloat) {
      multiply_few<float, float>(rows, weight, bias, out);
    } else {
      multiply_few<Bf16, Bf16>(rows, weight, bias, out);
    }
    return out;
  }
  if (rows.is_cpu() && rows.scalar_type() == at::kBFloat16 && !has_fast_bfloat16()) {
    // The same products and float32 sums; the widened weight lives for this product only.
    const at::Tensor wide_bias = bias.defined() ? bias.to(at::kFloat) : at::Tensor();
    return at::linear(rows.to(at::kFloat), weight.to(at::kFloat), wide_bias).to(at::kBFloat16);
  }
  return at::linear(rows, weight, bias);
}

at::Tensor project_float(const at::Tensor& rows, const at::Tensor& weight) {
  if (rows.is_cuda()) return float_product(rows, weight.t());
  if (suits_few_rows(rows, weight, {}) && rows.scalar_type() == at::kBFloat16) {
    at::Tensor out = at::empty({rows.size(0), weight.size(0)}, rows.options().dtype(at::kFloat));
    multiply_few<Bf16, float>(rows, weight, {}, out);
    return out;
  }
  return project(rows, weight).to(at::kFloat);
}

}  // namespace kvc
