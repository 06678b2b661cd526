// The ways to solve min ||A X - B||_F, for least_squares() and NormalEquations to choose from.
//
// Letters: A (n,t), B (n,m); float32. Solutions are float64.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "harness/core/error.h"
#include "harness/math/gram_matrix.h"
#include "harness/math/least_squares.h"

namespace kvc::systems {

Error broken(const std::string& fact);

// Throws Error(kInternal) when shapes contradict each other.
void check_system(const at::Tensor& a, const at::Tensor& b);

// The route that `asked` or, where it is not given, the device of `a` says.
FitRoute route_of(const at::Tensor& a, std::optional<FitRoute> asked);

// Whether float32 is worth trying for the first t columns of A.
bool is_quick(const at::Tensor& a, int64_t t, FitRoute route);

// At least as many rows as columns, by a float32 Gram matrix, `moment` A^T B in float32, and refinement. A first step
// by float32 products is enough where their rounding does not show. Returns nothing where it does not converge fast;
// the caller then uses float64.
std::optional<LeastSquares> solve_quickly(const at::Tensor& a, const at::Tensor& b, const at::Tensor& gram,
                                          const at::Tensor& moment);

// At least as many rows as columns. The refinement step brings the error of the normal equations from the square of the
// condition number down towards that of an orthogonal factorisation.
LeastSquares solve_tall(const at::Tensor& a, const at::Tensor& b, const Moments& moments);

// Fewer rows than columns: X = A^T (A A^T)^+ B, refined once.
LeastSquares solve_wide(const at::Tensor& a, const at::Tensor& b);

}  // namespace kvc::systems
