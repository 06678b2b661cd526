#include "harness/math/least_squares.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/core/error.h"

namespace kvc {
namespace {

constexpr int64_t kGramBlocks = 4;
constexpr int64_t kSmallestGramBlock = 64;

Error broken(const std::string& fact) {
  return Error(ErrorKind::kInternal, fact, "least squares", "this is a bug of the program; please report it");
}

// A^T A, (t,t). Only the blocks on and above the diagonal are multiplied.
at::Tensor gram_of_columns(const at::Tensor& a) {
  const int64_t t = a.size(1);
  const int64_t width = std::max(kSmallestGramBlock, (t + kGramBlocks - 1) / kGramBlocks);
  at::Tensor gram = at::empty({t, t}, a.options());
  for (int64_t first = 0; first < t; first += width) {
    const int64_t n_here = std::min(width, t - first);
    const at::Tensor block = at::mm(a.narrow(1, first, n_here).t(), a.narrow(1, first, t - first));
    gram.narrow(0, first, n_here).narrow(1, first, t - first).copy_(block);
    if (first + n_here < t) {
      gram.narrow(1, first, n_here).narrow(0, first + n_here, t - first - n_here)
          .copy_(block.narrow(1, n_here, t - first - n_here).t());
    }
  }
  return gram;
}

// The lower Cholesky factor of a positive definite matrix; undefined where the matrix is singular to working accuracy, judged by
// an estimate of its smallest eigenvalue from three steps of inverse iteration.
at::Tensor well_conditioned_factor(const at::Tensor& gram) {
  const auto [factor, info] = at::linalg_cholesky_ex(gram);
  if (info.item<int>() != 0) return {};
  const double largest = gram.abs().sum(1).max().item<double>();  // no eigenvalue is larger
  const double diagonal = factor.diagonal().min().item<double>();
  if (!(diagonal * diagonal > kRankCutoff * kRankCutoff * largest)) return {};
  // A fixed start without symmetry; inverse iteration turns it towards the smallest eigenvector.
  at::Tensor u = at::arange(1, gram.size(0) + 1, gram.options()).mul_(0.618).sin_().add_(0.1).unsqueeze_(1);
  double inverse_eigenvalue = 0;
  for (int step = 0; step < 3; ++step) {
    u = u / u.norm();
    u = at::cholesky_solve(u, factor);
    inverse_eigenvalue = u.norm().item<double>();
  }
  if (!(inverse_eigenvalue * kRankCutoff * kRankCutoff * largest < 1.0)) return {};
  return factor;
}

struct SymmetricSolver {
  at::Tensor factor;                       // lower Cholesky factor, or undefined
  at::Tensor eigenvectors, reciprocals;    // (t,t), (t,1) with zeros for what is left out
  int64_t rank = 0;

  explicit SymmetricSolver(const at::Tensor& gram) {
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

  // G^+ b
  at::Tensor solve(const at::Tensor& b) const {
    if (factor.defined()) return at::cholesky_solve(b, factor);
    return at::mm(eigenvectors, at::mm(eigenvectors.t(), b).mul_(reciprocals));
  }

  LeastSquaresSolver kind() const {
    return factor.defined() ? LeastSquaresSolver::kCholesky : LeastSquaresSolver::kEigenvectors;
  }
};

// Minimum-norm least squares in float64. `gram` is A^T A where the caller has it. The refinement step brings the error of the normal
// equations from the square of the condition number down towards that of an orthogonal factorisation.
LeastSquares solve_float64(const at::Tensor& a, const at::Tensor& b, at::Tensor gram) {
  const bool tall = a.size(0) >= a.size(1);
  if (!gram.defined() || !tall) gram = gram_of_columns(tall ? a : a.t().contiguous());
  const SymmetricSolver solver(gram);
  const auto apply = [&](const at::Tensor& rhs) {
    return tall ? solver.solve(at::mm(a.t(), rhs)) : at::mm(a.t(), solver.solve(rhs));
  };
  LeastSquares result;
  result.solution = apply(b);
  at::Tensor residual = b - at::mm(a, result.solution);
  result.solution = result.solution + apply(residual);
  result.residual_norm = (b - at::mm(a, result.solution)).norm().item<double>();
  result.rank = solver.rank;
  result.solver = solver.kind();
  return result;
}

void check_system(const at::Tensor& a, const at::Tensor& b) {
  if (a.dim() != 2 || b.dim() < 1 || b.dim() > 2 || a.size(0) != b.size(0)) {
    throw broken(fmt::format("a system of {} dimensions and {} rows with a right-hand side of {} rows", a.dim(), a.size(0),
                             b.size(0)));
  }
}

}  // namespace

LeastSquares least_squares(const at::Tensor& a, const at::Tensor& b) {
  check_system(a, b);
  const int64_t t = a.size(1);
  const at::Tensor rhs = (b.dim() == 1 ? b.unsqueeze(1) : b).to(at::kDouble);
  LeastSquares result;
  if (t == 0 || a.size(0) == 0) {
    result.solution = at::zeros({t, rhs.size(1)}, rhs.options());
    result.residual_norm = rhs.numel() == 0 ? 0.0 : rhs.norm().item<double>();
  } else {
    result = solve_float64(a.to(at::kDouble), rhs, {});
  }
  if (!std::isfinite(result.residual_norm)) throw broken("the data of a least-squares fit are not finite");
  result.solution = result.solution.to(at::kFloat);
  if (b.dim() == 1) result.solution = result.solution.squeeze(1);
  return result;
}

NormalEquations::NormalEquations(const at::Tensor& a, const at::Tensor& y) {
  check_system(a, y);
  a_ = a.to(at::kDouble);
  y_ = y.to(at::kDouble).reshape({-1, 1});
  gram_ = gram_of_columns(a_);
  moment_ = at::mm(a_.t(), y_);
}

namespace {

// Squared spectral norm of A from its Gram matrix: three power iterations from a seeded random start, as published.
double squared_spectral_norm(const at::Tensor& gram, std::uint64_t seed) {
  constexpr double kTiny = 1e-12;
  constexpr double kSmallest = 1e-6;
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  at::Tensor u = at::randn({gram.size(0), 1}, generator, at::TensorOptions(at::kDouble)).to(gram.device());
  u = u / (u.norm() + kTiny);
  for (int step = 0; step < 3; ++step) {
    const at::Tensor next = at::mm(gram, u);  // the two half steps v = A u / |A u|, u = A^T v / |A^T v| in one
    const double norm = next.norm().item<double>();
    if (norm == 0) break;
    u = next / (norm + kTiny);
  }
  const double sigma = std::max(std::sqrt(std::max((u * at::mm(gram, u)).sum().item<double>(), 0.0)), kSmallest);
  return std::max(sigma * sigma, kSmallest);
}

}  // namespace

BoxedFit NormalEquations::fit_box(int64_t k, const BoxSettings& settings) const {
  if (k < 0 || k > a_.size(1)) throw broken(fmt::format("{} of {} columns asked for", k, a_.size(1)));
  BoxedFit fit;
  if (k == 0) {
    fit.solution = at::zeros({0}, a_.options().dtype(at::kFloat));
    fit.residual_norm = y_.norm().item<double>();
    return fit;
  }
  const at::Tensor gram = gram_.narrow(0, 0, k).narrow(1, 0, k).contiguous();
  const at::Tensor moment = moment_.narrow(0, 0, k);
  const at::Tensor a = a_.narrow(1, 0, k);
  const std::optional<double> upper = settings.upper;
  const auto clamp = [&](const at::Tensor& w) {
    return at::clamp(w, settings.lower, upper ? std::optional<at::Scalar>(*upper) : std::nullopt);
  };

  const LeastSquares start = solve_float64(a, y_, gram);
  fit.rank = start.rank;
  fit.solver = start.solver;
  if (!std::isfinite(start.residual_norm)) throw broken("the data of a box-constrained fit are not finite");
  at::Tensor w = clamp(start.solution);
  if (settings.iterations > 0) {
    const double step = 1.0 / squared_spectral_norm(gram, settings.seed);
    for (int64_t i = 0; i < settings.iterations; ++i) w = clamp(w - (at::mm(gram, w) - moment) * step);
  }
  fit.residual_norm = (at::mm(a, w) - y_).norm().item<double>();
  fit.n_at_lower = (w <= settings.lower).sum().item<int64_t>();
  fit.n_at_upper = upper ? (w >= *upper).sum().item<int64_t>() : 0;
  fit.solution = w.to(at::kFloat).squeeze(1);
  return fit;
}

}  // namespace kvc
