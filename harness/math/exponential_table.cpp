#include "harness/math/exponential_table.h"

#include <ATen/ATen.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "harness/core/vector_clones.h"
#include "harness/math/panel_products.h"

namespace kvc {

using namespace panels;

namespace {

constexpr int64_t kTile = 48;    // queries whose logits become exponentials at a time
constexpr int64_t kBlock = 480;  // queries of a panel: 30 KB
static_assert(ExponentialTable::kRowsTogether == kRows);

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

// Memory that the system is asked to back with its large pages: a pass over some ten thousand small ones costs as much
// as the sums.
std::unique_ptr<float, void (*)(void*)> in_large_pages(int64_t floats) {
  constexpr int64_t kPage = int64_t{1} << 21;
  const auto bytes = static_cast<size_t>(std::max<int64_t>(1, parts(4 * floats, kPage)) * kPage);
  void* memory = std::aligned_alloc(static_cast<size_t>(kPage), bytes);
  if (memory == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  ::madvise(memory, bytes, MADV_HUGEPAGE);  // without it the pages are small, and the sums the same
#endif
  return {static_cast<float*>(memory), std::free};
}

}  // namespace

ExponentialTable::ExponentialTable(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                   const at::Tensor& row_max, const at::Tensor& y)
    : n_(queries.size(0)),
      source_len_(keys.size(0)),
      blocks_(parts(n_, kBlock)),
      panels_(parts(source_len_, kPanel)),
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
  const int64_t groups = parts(n_keys, kRows), stride = panels_ * kPanel;
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
