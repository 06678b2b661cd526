// The residual B - A X and its gradient: one step of refining a least-squares solution.
//
// Letters: A (n,t), B (n,m), X (t,m).
#pragma once

#include <ATen/core/Tensor.h>

namespace kvc {

struct Residual {
  at::Tensor gradient;  // (t,m) float64, A^T (B - A X)
  double squared = 0;   // ||B - A X||_F^2
};

// a (n,t) float32, its rows contiguous, b (n,1) or (n,m) float32, x (t,m) float64. Products and sums are float64: 4 n t
// m flops, with one column in one pass over A, else a few hundred rows at a time.
Residual residual_of(const at::Tensor& a, const at::Tensor& b, const at::Tensor& x);

// The same at half the cost: products in float32, sums of some hundred of them in float64. Each entry of B - A X is off
// by about a unit in the last place of B.
Residual rough_residual_of(const at::Tensor& a, const at::Tensor& b, const at::Tensor& x);

}  // namespace kvc
