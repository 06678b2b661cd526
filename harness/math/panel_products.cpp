#include "harness/math/panel_products.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

namespace kvc::panels {
namespace {

constexpr int64_t kBlock = 480;  // rows at a time: a panel of them is 30 KB

// Columns of `here` rows in groups of `width`, each (here, width): zeros behind the last column.
template <int64_t width>
void pack_columns(const float* rows, int64_t stride, int64_t here, int64_t t, float* out) {
  for (int64_t first = 0; first < t; first += width, out += here * width) {
    const int64_t whole = std::min(width, t - first);
    for (int64_t i = 0; i < here; ++i) {
      const float* from = rows + i * stride + first;
      float* to = out + i * width;
      if (whole == width) {
        std::copy_n(from, width, to);
      } else {
        std::fill(std::copy_n(from, whole, to), to + width, 0.0F);
      }
    }
  }
}

}  // namespace

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

void add_gram(const float* rows, int64_t stride, int64_t n, int64_t t, float* gram) {
  const int64_t groups = parts(t, kRows), panels = parts(t, kPanel), gram_stride = panels * kPanel;
  std::vector<float> left(static_cast<size_t>(groups * kRows * kBlock)),
      right(static_cast<size_t>(gram_stride * kBlock));
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t here = std::min(kBlock, n - first);
    pack_columns<kRows>(rows + first * stride, stride, here, t, left.data());
    pack_columns<kPanel>(rows + first * stride, stride, here, t, right.data());
    for (int64_t p = 0; p < panels; ++p) {
      for (int64_t g = 0; g < groups && g * kRows < (p + 1) * kPanel; ++g) {
        multiply(left.data() + g * kRows * here, right.data() + p * kPanel * here, here,
                 gram + g * kRows * gram_stride + p * kPanel, gram_stride, true);
      }
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
