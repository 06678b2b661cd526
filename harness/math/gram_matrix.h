// Gram matrices of tall tables, one triangle computed and the other copied.
#pragma once

#include <ATen/core/Tensor.h>

namespace kvc {

// What a least-squares problem with at least as many rows as columns comes down to.
struct Moments {
  at::Tensor gram;    // A^T A (t,t) float64
  at::Tensor moment;  // A^T B (t,m) float64

  Moments() = default;
  // a (n,t), b (n,m) float32; a few hundred rows are in float64 at a time. About 1.25 n t^2 flops.
  Moments(const at::Tensor& a, const at::Tensor& b);
};

// A^T A (t,t) in float32, of float32; some thousand products are summed in float32, then the sums of such. n t^2 flops
// on a CPU, 1.1 to 1.6 n t^2 elsewhere.
at::Tensor quick_gram(const at::Tensor& a);

}  // namespace kvc
