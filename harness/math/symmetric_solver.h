// Solvers of symmetric positive systems G x = b; singular values below a Gram matrix's rounding count as zero.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/math/least_squares.h"

namespace kvc {

// By Cholesky in float64, or where G is singular to working accuracy by its eigenvectors.
struct SymmetricSolver {
  at::Tensor factor;                     // lower Cholesky factor, or undefined
  at::Tensor eigenvectors, reciprocals;  // (t,t), (t,1) with zeros for what is left out
  int64_t rank = 0;

  explicit SymmetricSolver(const at::Tensor& gram);
  at::Tensor solve(const at::Tensor& b) const;  // G^+ b
  LeastSquaresSolver kind() const;
};

// A float32 Gram matrix's factor after its rows and columns are scaled to a diagonal of ones: it inverts well enough
// for refinement steps to do the rest, wherever columns are not too close to dependent.
struct QuickSolver {
  at::Tensor factor;  // (t,t) float32 or undefined
  at::Tensor scale;   // (t,1) float32, 1 / norm of each column

  explicit QuickSolver(const at::Tensor& gram);
  at::Tensor solve(const at::Tensor& b) const;  // float64
};

}  // namespace kvc
