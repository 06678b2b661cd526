#include "harness/math/symmetric_solver.h"

#include <ATen/ATen.h>

namespace kvc {
namespace {

// Of a factored matrix with no eigenvalue above `largest`: whether the smallest, estimated by three steps of inverse
// iteration, is above the cut-off.
template <class Solve>
bool above_cutoff(const Solve& solve, int64_t t, const at::TensorOptions& options, double largest) {
  // A fixed start without symmetry; inverse iteration turns it towards the smallest eigenvector.
  at::Tensor u = at::arange(1, t + 1, options).mul_(0.618).sin_().add_(0.1).unsqueeze_(1);
  double inverse_eigenvalue = 0;
  for (int step = 0; step < 3; ++step) {
    u = u / u.norm();
    u = solve(u);
    inverse_eigenvalue = u.norm().template item<double>();
  }
  return inverse_eigenvalue * kRankCutoff * kRankCutoff * largest < 1.0;
}

// The lower Cholesky factor of a positive definite matrix; undefined where the matrix is singular to working accuracy,
// judged by an estimate of its smallest eigenvalue from three steps of inverse iteration.
at::Tensor well_conditioned_factor(const at::Tensor& gram) {
  const auto [factor, info] = at::linalg_cholesky_ex(gram);
  if (info.item<int>() != 0) return {};
  const double largest = gram.abs().sum(1).max().item<double>();  // no eigenvalue is larger
  const double diagonal = factor.diagonal().min().item<double>();
  if (!(diagonal * diagonal > kRankCutoff * kRankCutoff * largest)) return {};
  const auto solve = [&factor = factor](const at::Tensor& u) { return at::cholesky_solve(u, factor); };
  if (!above_cutoff(solve, gram.size(0), gram.options(), largest)) return {};
  return factor;
}

}  // namespace

SymmetricSolver::SymmetricSolver(const at::Tensor& gram) {
  factor = well_conditioned_factor(gram);
  rank = gram.size(0);
  if (factor.defined()) return;
  const auto [values, vectors] = at::linalg_eigh(gram);
  const double largest = values.max().item<double>();
  const at::Tensor kept = values > kRankCutoff * kRankCutoff * largest;
  eigenvectors = vectors;
  reciprocals = at::where(kept, values.reciprocal(), at::zeros_like(values)).unsqueeze(1);
  rank = largest > 0 ? kept.sum().item<int64_t>() : 0;
  if (rank == 0) reciprocals.zero_();
}

at::Tensor SymmetricSolver::solve(const at::Tensor& b) const {
  if (factor.defined()) return at::cholesky_solve(b, factor);
  return at::mm(eigenvectors, at::mm(eigenvectors.t(), b).mul_(reciprocals));
}

LeastSquaresSolver SymmetricSolver::kind() const {
  return factor.defined() ? LeastSquaresSolver::kCholesky : LeastSquaresSolver::kEigenvectors;
}

QuickSolver::QuickSolver(const at::Tensor& gram) : scale(gram.diagonal().rsqrt().unsqueeze(1)) {
  const at::Tensor scaled = gram * scale * scale.t();
  const auto [lower, info] = at::linalg_cholesky_ex(scaled);
  if (info.item<int>() != 0) return;
  factor = lower;
  // Of columns of length 1: one that is much longer than the others, as that of an attention sink, says nothing about
  // whether they depend on each other.
  const double largest = scaled.abs().sum(1).max().item<double>();
  const auto inverse = [this](const at::Tensor& u) {
    return at::cholesky_solve(u.to(at::kFloat), factor).to(at::kDouble);
  };
  if (!above_cutoff(inverse, gram.size(0), gram.options().dtype(at::kDouble), largest)) factor = at::Tensor();
}

at::Tensor QuickSolver::solve(const at::Tensor& b) const {
  return at::cholesky_solve(b.to(at::kFloat) * scale, factor).mul_(scale).to(at::kDouble);
}

}  // namespace kvc
