#include "harness/math/panel_products.h"

#include <ATen/ATen.h>

namespace kvc::panels {

// By itself, so that nothing else asks for the registers of its sums.
KVC_VECTOR_CLONES void multiply(const float* a, const float* b, int64_t length, float* out, int64_t stride, bool add) {
  Floats sums[kRows][2] = {};
  for (int64_t i = 0; i < length; ++i) {
    const Floats low = *reinterpret_cast<const Floats*>(b + i * kPanel);
    const Floats high = *reinterpret_cast<const Floats*>(b + i * kPanel + kWidth);
#pragma GCC unroll 6
    for (int64_t r = 0; r < kRows; ++r) {
      sums[r][0] += low * a[i * kRows + r];
      sums[r][1] += high * a[i * kRows + r];
    }
  }
#pragma GCC unroll 6
  for (int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      Floats& to = *reinterpret_cast<Floats*>(out + r * stride + half * kWidth);
      to = add ? to + sums[r][half] : sums[r][half];
    }
  }
}

int64_t parts(int64_t x, int64_t unit) {
  return (x + unit - 1) / unit;
}

at::Tensor packed(const at::Tensor& rows, int64_t group) {
  const int64_t n = rows.size(0), groups = parts(n, group);
  at::Tensor all = rows;
  if (groups * group != n) {
    all = at::zeros({groups * group, rows.size(1)}, rows.options());
    all.narrow(0, 0, n).copy_(rows);
  }
  return all.view({groups, group, rows.size(1)}).transpose(1, 2).contiguous();
}

}  // namespace kvc::panels
