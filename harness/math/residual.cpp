#include "harness/math/residual.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "harness/core/vector_clones.h"
#include "harness/math/row_blocks.h"

namespace kvc {
namespace {

constexpr int64_t kWidth = 4;
using Doubles = double __attribute__((vector_size(8 * kWidth), aligned(8), may_alias));
using Floats = float __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));

// B of one column: each row of A is read from memory once, for both products. Returns ||B - A x||^2.
KVC_VECTOR_CLONES double add_rows(const float* a, int64_t stride, int64_t n, int64_t t, const float* b,
                                  int64_t b_stride, const double* x, double* gradient) {
  double squared = 0;
  const int64_t whole = t / kWidth * kWidth;
  for (int64_t i = 0; i < n; ++i) {
    const float* row = a + i * stride;
    Doubles sums[2] = {};
    int64_t j = 0;
    for (; j + 2 * kWidth <= t; j += 2 * kWidth) {
#pragma GCC unroll 2
      for (int64_t half = 0; half < 2; ++half) {
        const int64_t at = j + half * kWidth;
        sums[half] += __builtin_convertvector(*reinterpret_cast<const Floats*>(row + at), Doubles) *
                      *reinterpret_cast<const Doubles*>(x + at);
      }
    }
    sums[0] += sums[1];
    double rest = static_cast<double>(b[i * b_stride]) - ((sums[0][0] + sums[0][1]) + (sums[0][2] + sums[0][3]));
    for (; j < t; ++j) rest -= static_cast<double>(row[j]) * x[j];
    squared += rest * rest;
    for (j = 0; j < whole; j += kWidth) {
      *reinterpret_cast<Doubles*>(gradient + j) +=
          __builtin_convertvector(*reinterpret_cast<const Floats*>(row + j), Doubles) * rest;
    }
    for (; j < t; ++j) gradient[j] += static_cast<double>(row[j]) * rest;
  }
  return squared;
}

}  // namespace

Residual residual_of(const at::Tensor& a, const at::Tensor& b, const at::Tensor& x) {
  const int64_t t = a.size(1), m = b.size(1);
  Residual result{at::zeros({t, m}, x.options()), 0};
  if (m == 1 && a.is_cpu() && a.stride(1) == 1) {
    const at::Tensor weights = x.contiguous();
    result.squared =
        add_rows(a.const_data_ptr<float>(), a.stride(0), a.size(0), t, b.const_data_ptr<float>(), b.stride(0),
                 weights.const_data_ptr<double>(), result.gradient.mutable_data_ptr<double>());
    return result;
  }
  const at::Tensor squared = at::zeros({}, x.options());  // read once: a GPU is not waited for block by block
  for_each_block(a, b, [&](const at::Tensor& joined) {
    const at::Tensor rows = joined.narrow(1, 0, t), residual = joined.narrow(1, t, m);
    residual.addmm_(rows, x, /*beta=*/1, /*alpha=*/-1);
    squared.add_(residual.square().sum());
    result.gradient.addmm_(rows.t(), residual);
  });
  result.squared = squared.item<double>();
  return result;
}

Residual rough_residual_of(const at::Tensor& a, const at::Tensor& b, const at::Tensor& x) {
  const int64_t n = a.size(0);
  const at::Tensor weights = x.to(at::kFloat);
  Residual result{at::zeros(x.sizes(), x.options()), 0};
  const at::Tensor squared = at::zeros({}, x.options());
  const int64_t most = a.is_cpu() ? kBlockRows : 4096;  // sums of some thousand products in float32
  for (int64_t first = 0; first < n; first += most) {
    const int64_t here = std::min(most, n - first);
    const at::Tensor rows = a.narrow(0, first, here);
    const at::Tensor residual = at::addmm(b.narrow(0, first, here), rows, weights, /*beta=*/1, /*alpha=*/-1);
    result.gradient.add_(at::mm(rows.t(), residual));
    squared.add_(residual.square_().sum(at::kDouble));
  }
  result.squared = squared.item<double>();
  return result;
}

}  // namespace kvc
