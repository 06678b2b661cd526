#include "harness/math/exponential_table.h"

#include <ATen/ATen.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "harness/core/vector_clones.h"

namespace kvc {
namespace {

constexpr int64_t kWidth = 8;   // floats in a vector of 256 bits; narrower processors take several for one
constexpr int64_t kPanel = 16;  // columns of a panel
constexpr int64_t kRows = ExponentialTable::kRowsTogether;  // with 16 columns their sums fill the registers
constexpr int64_t kTile = 48;                               // queries whose logits become exponentials at a time
constexpr int64_t kBlock = 480;                             // queries of a panel: 30 KB

using Floats = float __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));
using Integers = std::int32_t __attribute__((vector_size(4 * kWidth)));

// Vectors go by reference: by value they would need the wider registers in every version.

// x = e^x for x <= 0 and not NaN, to 2 units in the last place; 0 below -87.
KVC_INLINE void exponential(Floats& x) {
  const Integers visible = x > -87.0F;
  const Floats bounded = visible ? x : Floats{} - 87.0F;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Floats shifted = bounded * 1.44269504F + kRound;
  const Floats whole = shifted - kRound;
  const Floats r = (bounded - whole * 0.693145752F) - whole * 1.42860677e-6F;  // ln 2 in two parts
  Floats series = Floats{} + 1.0F / 5040;  // of e^r, |r| <= ln 2 / 2: the next term is below 6e-9
  for (const float factor : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F})
    series = series * r + factor;
  const Integers power = reinterpret_cast<Integers>(shifted) << 23;  // times 2^whole: added to the exponent
  x = reinterpret_cast<Floats>((reinterpret_cast<Integers>(series) + power) & visible);
}

// a (length, 6) and b (length, 16), both contiguous: out = a^T b. By itself, so that nothing else asks for the
// registers of its sums.
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

// Logits (rows, 16) to exp(logits + bias - m), in place, and their sum times y to moment.
KVC_VECTOR_CLONES void exponentials(float* table, int64_t rows, const float* bias, const float* row_max, const float* y,
                                    double* moment) {
  Floats sum[2] = {};
  for (int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      Floats& x = *reinterpret_cast<Floats*>(table + r * kPanel + half * kWidth);
      Floats e = x + *reinterpret_cast<const Floats*>(bias + half * kWidth) - row_max[r];
      exponential(e);
      x = e;
      sum[half] += e * y[r];
    }
  }
  for (int64_t j = 0; j < kPanel; ++j) moment[j] += static_cast<double>(sum[j / kWidth][j % kWidth]);
}

int64_t rounded_up(int64_t x, int64_t unit) {
  return (x + unit - 1) / unit;
}

// Memory that the system is asked to back with its large pages: a pass over some ten thousand small ones costs as much
// as the sums.
std::unique_ptr<float, void (*)(void*)> in_large_pages(int64_t floats) {
  constexpr int64_t kPage = int64_t{1} << 21;
  const auto bytes = static_cast<size_t>(std::max<int64_t>(1, rounded_up(4 * floats, kPage)) * kPage);
  void* memory = std::aligned_alloc(static_cast<size_t>(kPage), bytes);
  if (memory == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  ::madvise(memory, bytes,
            MADV_HUGEPAGE);  // without it the pages are small, and the sums the same
#endif
  return {static_cast<float*>(memory), std::free};
}

// (rows, d) as groups of `group` rows, each (d, group): zeros behind the last row.
at::Tensor packed(const at::Tensor& rows, int64_t group) {
  const int64_t n = rows.size(0), groups = rounded_up(n, group);
  at::Tensor all = rows;
  if (groups * group != n) {
    all = at::zeros({groups * group, rows.size(1)}, rows.options());
    all.narrow(0, 0, n).copy_(rows);
  }
  return all.view({groups, group, rows.size(1)}).transpose(1, 2).contiguous();
}

}  // namespace

ExponentialTable::ExponentialTable(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                   const at::Tensor& row_max, const at::Tensor& y)
    : n_(queries.size(0)),
      source_len_(keys.size(0)),
      blocks_(rounded_up(n_, kBlock)),
      panels_(rounded_up(source_len_, kPanel)),
      table_(in_large_pages(blocks_ * panels_ * kBlock * kPanel)),
      moment_(static_cast<size_t>(panels_ * kPanel), 0.0) {
  const at::Tensor all_bias = at::zeros({panels_ * kPanel}, keys.options());
  if (bias.defined()) all_bias.narrow(0, 0, source_len_).copy_(bias);
  const at::Tensor all_keys = packed(keys.contiguous(), kPanel), all_max = row_max.contiguous(), all_y = y.contiguous();
  for (int64_t block = 0; block < blocks_; ++block) {
    const int64_t first = block * kBlock, here = std::min(kBlock, n_ - first);
    const at::Tensor some = packed(queries.narrow(0, first, here).contiguous(), kRows);
    fill(block, some.const_data_ptr<float>(), all_keys, all_bias.const_data_ptr<float>(),
         all_max.const_data_ptr<float>() + first, all_y.const_data_ptr<float>() + first);
  }
  moment_.resize(static_cast<size_t>(source_len_));
}

void ExponentialTable::fill(int64_t block, const float* queries, const at::Tensor& keys, const float* bias,
                            const float* row_max, const float* y) {
  const int64_t dim = keys.size(1), here = std::min(kBlock, n_ - block * kBlock);
  float* out = table_.get() + block * panels_ * kBlock * kPanel;
  for (int64_t p = 0; p < panels_; ++p, out += kBlock * kPanel) {
    const float* some = keys.const_data_ptr<float>() + p * kPanel * dim;
    double* moment = moment_.data() + p * kPanel;
    for (int64_t first = 0; first < here; first += kTile) {
      const int64_t last = std::min(first + kTile, here);
      for (int64_t row = first; row < last; row += kRows) {
        multiply(queries + row * dim, some, dim, out + row * kPanel, kPanel, false);
      }
      exponentials(out + first * kPanel, last - first, bias + p * kPanel, row_max + first, y + first, moment);
    }
  }
}

const float* ExponentialTable::panel(int64_t block, int64_t panel) const {
  return table_.get() + (block * panels_ + panel) * kBlock * kPanel;
}

std::vector<float> ExponentialTable::column(int64_t key) const {
  std::vector<float> result(static_cast<size_t>(n_));
  for (int64_t block = 0; block < blocks_; ++block) {
    const float* from = panel(block, key / kPanel) + key % kPanel;
    const int64_t first = block * kBlock, here = std::min(kBlock, n_ - first);
    for (int64_t i = 0; i < here; ++i) result[static_cast<size_t>(first + i)] = from[i * kPanel];
  }
  return result;
}

at::Tensor ExponentialTable::gram_rows(const std::vector<int64_t>& keys, int64_t first_column) const {
  const auto n_keys = static_cast<int64_t>(keys.size());
  const int64_t groups = rounded_up(n_keys, kRows), stride = panels_ * kPanel;
  at::Tensor rows = at::zeros({groups * kRows, stride}, at::TensorOptions(at::kFloat));
  std::vector<float> columns(static_cast<size_t>(groups * kRows * kBlock), 0.0F);
  for (int64_t block = 0; block < blocks_; ++block) {
    const int64_t here = std::min(kBlock, n_ - block * kBlock);
    for (int64_t k = 0; k < n_keys; ++k) {
      const int64_t key = keys[static_cast<size_t>(k)];
      const float* from = panel(block, key / kPanel) + key % kPanel;
      float* to = columns.data() + (k / kRows) * kRows * kBlock + k % kRows;
      for (int64_t i = 0; i < here; ++i) to[i * kRows] = from[i * kPanel];
    }
    for (int64_t p = first_column / kPanel; p < panels_; ++p) {
      for (int64_t group = 0; group < groups; ++group) {
        multiply(columns.data() + group * kRows * kBlock, panel(block, p), here,
                 rows.mutable_data_ptr<float>() + group * kRows * stride + p * kPanel, stride, true);
      }
    }
  }
  return rows.narrow(0, 0, n_keys).narrow(1, 0, source_len_).contiguous();
}

}  // namespace kvc
