// The table E = exp(S - m) of a head's attention, S the logits and m their row maximum, kept for Gram products.
//
// Logits, exponentials, table and h = E^T y are one pass, and rows of G = E^T E are made some at a time without copying
// the table: it lies in panels of 16 keys and 480 queries, as the products read it. float32, on the CPU, one thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace kvc {

class ExponentialTable {
 public:
  // Products cost least for a multiple of this many rows.
  static constexpr int64_t kRowsTogether = 6;

  // queries (n,d), over sqrt(d) already, keys (T,d), bias (T) or undefined, row_max (n), y (n): float32 on the CPU. 2 n
  // T d flops; 4 n T bytes, n and T rounded up to whole panels.
  ExponentialTable(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias, const at::Tensor& row_max,
                   const at::Tensor& y);

  const std::vector<double>& moment() const { return moment_; }  // h (T)

  // Rows of G, (keys,T) float32: 2 n T flops each, and one pass over the table. 480 products are summed in float32,
  // then the sums of such. Columns before `first_column` need not be right.
  at::Tensor gram_rows(const std::vector<int64_t>& keys, int64_t first_column = 0) const;

  std::vector<float> column(int64_t key) const;  // (n)

 private:
  void fill(int64_t block, const float* queries, const at::Tensor& keys, const float* bias, const float* row_max,
            const float* y);
  const float* panel(int64_t block, int64_t panel) const;

  int64_t n_, source_len_, blocks_, panels_;
  std::unique_ptr<float, void (*)(void*)> table_;  // (blocks, panels, 480, 16)
  std::vector<double> moment_;
};

}  // namespace kvc
