// Cholesky factors of many matrices at once by blocks of columns: on a GPU the libraries factor large matrices one
// after another, or in batches made for small ones; here each step is one product for all of them.
//
// Letters: H matrices (t,t), t/b blocks of b = 128 columns.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvc {

class BlockCholesky {
 public:
  // matrices (H,t,t) symmetric, float32 or float64; overwritten. 2 t^3 / 3 flops each, some ten launches a block of
  // columns, and the host waits for none.
  explicit BlockCholesky(const at::Tensor& matrices);

  // (H) bool, on the device: matrices that are not positive definite. What solve() gives for them means nothing; the
  // others are not touched by it.
  const at::Tensor& failed() const { return failed_; }
  // (H,t): the factors' diagonals.
  at::Tensor diagonal() const { return lower_.diagonal(0, 1, 2); }
  // (H,t,m): the solutions of matrix x = b for b (H,t,m) of the same dtype. 2 t^2 m flops each, four launches a block.
  at::Tensor solve(const at::Tensor& b) const;
  // (H,t,t): the inverses of the lower factors. t^3 / 3 flops each.
  at::Tensor inverse_factors() const;

 private:
  at::Tensor lower_;     // (H,t,t); above the diagonal whatever was there
  at::Tensor inverses_;  // (H,t,b): of the blocks on the diagonal, one below the other
  at::Tensor failed_;
};

}  // namespace kvc
