// Least squares of many heads at once, for GPUs, which one head leaves idle and where every wait of the host for a
// number costs more than the arithmetic behind it. What least_squares.h decides by looking at numbers is decided on the
// device here; a head that needs another way (columns that depend on each other) is reported, not solved.
//
// Letters: H heads, A (n,t) and B (n,m) of each, G = A^T A.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "harness/math/least_squares.h"

namespace kvc {

struct BatchedSolution {
  at::Tensor solution;  // (H,t,m) float64; 0 where a column is left out
  at::Tensor rank;      // (H) int64: columns that are not left out
  // (H) bool: false where columns depend on each other or numbers are not finite, and the solution means nothing.
  at::Tensor trusted;
};

// argmin ||A X - B||_F of every head; a (H,n,t), b (H,n,m) float32, n >= t. Columns of zeros, such as fill heads of
// fewer columns up to a common t, are left out, and so are those whose length alone puts them below kRankCutoff of the
// largest: 0 in the solution of smallest norm too. Solutions are those of least_squares() within its promise.
//
// kDouble: G and its Cholesky factor in float64, one step of refinement. kRefined: both in float32 (sums of some
// thousand products, then of such in float64), three steps with residuals in float64, and trust only where they shrink
// as fast as least_squares() asks. Not given: the device's route.
//
// Cost a head: 1.13 n t^2 + 2 t^3 / 3 + (2 + 4 steps) n t m flops; 20 + 8 (steps) bytes an entry of A for copies in
// float64; launches: some 20 for each 1 GiB of A in float64 and 60 for each 128 columns, whatever H. Memory: 1 GiB and
// 24 t^2 bytes a head beside A. The host waits for nothing.
BatchedSolution batched_least_squares(const at::Tensor& a, const at::Tensor& b, std::optional<FitRoute> route = {});

struct BatchedBoxedFit {
  at::Tensor solution;    // (H,t) float32 within the box; 0 where `present` is not
  at::Tensor n_at_bound;  // (H) int64
  at::Tensor rank;        // (H) int64, of the unconstrained start
  at::Tensor trusted;     // (H) bool, as above
};

// NormalEquations::fit_box() of every head. y (H,n) float32; present (H,t) bool: columns that are a head's own.
BatchedBoxedFit batched_fit_box(const at::Tensor& a, const at::Tensor& y, const at::Tensor& present,
                                const BoxSettings& settings, std::optional<FitRoute> route = {});

}  // namespace kvc
