#include "harness/math/least_squares.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "harness/core/error.h"
#include "harness/math/residual.h"
#include "harness/math/row_blocks.h"

namespace kvc {
namespace {

constexpr int64_t kPanels = 4;
constexpr int64_t kSmallestPanel = 64;
// From so many columns on the Gram matrix is tried in float32: below, float64 costs too little to matter.
constexpr int64_t kQuickColumns = 32;
constexpr int64_t kQuickPanels = 12;
constexpr int64_t kQuickRows = 4096;  // summed in float32 before they are added in float64
// Refinement of a float32 factor: the most steps, the part of the last one that may remain, and what may be left of the
// solution's error.
constexpr int kMostRefinements = 3;
constexpr double kSlowest = 0.2;
constexpr double kQuickError = 3e-6;

Error broken(const std::string& fact) {
  return Error(ErrorKind::kInternal, fact, "least squares", "this is a bug of the program; please report it");
}

// What a least-squares problem with at least as many rows as columns comes down to.
struct Moments {
  at::Tensor gram;    // A^T A (t,t) float64
  at::Tensor moment;  // A^T B (t,m) float64

  Moments() = default;
  Moments(const at::Tensor& a, const at::Tensor& b) {
    const int64_t t = a.size(1), m = b.size(1);
    const int64_t width = std::max(kSmallestPanel, (t + kPanels - 1) / kPanels);
    const at::Tensor sums = at::zeros({t, t + m}, a.options().dtype(at::kDouble));
    for_each_block(a, b, [&](const at::Tensor& joined) {
      // Panels of the Gram matrix from the diagonal on; the rest follows by symmetry.
      for (int64_t first = 0; first < t; first += width) {
        const int64_t n_here = std::min(width, t - first);
        sums.narrow(0, first, n_here)
            .narrow(1, first, t + m - first)
            .addmm_(joined.narrow(1, first, n_here).t(), joined.narrow(1, first, t + m - first));
      }
    });
    const at::Tensor upper = sums.narrow(1, 0, t).triu();
    gram = upper + upper.triu(1).t();
    moment = sums.narrow(1, t, m).contiguous();
  }
};

// Upper panels of A^T A on float32 input as it is, the rest by symmetry. (t,t) float32.
at::Tensor quick_gram(const at::Tensor& a) {
  const int64_t n = a.size(0), t = a.size(1);
  const int64_t width = std::max(kSmallestPanel, (t + kQuickPanels - 1) / kQuickPanels);
  const bool one_sum = n <= kQuickRows;
  at::Tensor sum = at::empty({t, t}, a.options()), total;
  if (!one_sum) total = at::zeros({t, t}, a.options().dtype(at::kDouble));
  for (int64_t first = 0; first < n; first += kQuickRows) {
    const at::Tensor rows = a.narrow(0, first, std::min(kQuickRows, n - first));
    for (int64_t panel = 0; panel < t; panel += width) {
      const int64_t here = std::min(width, t - panel);
      at::Tensor out = sum.narrow(0, panel, here).narrow(1, panel, t - panel);
      at::mm_out(out, rows.narrow(1, panel, here).t(), rows.narrow(1, panel, t - panel));
    }
    if (!one_sum) total.add_(sum);
  }
  if (!one_sum) sum = total.to(at::kFloat);
  for (int64_t panel = 0; panel < t; panel += width) {
    const int64_t here = std::min(width, t - panel), behind = t - panel - here;
    if (behind == 0) break;
    sum.narrow(0, panel + here, behind)
        .narrow(1, panel, here)
        .copy_(sum.narrow(0, panel, here).narrow(1, panel + here, behind).t());
  }
  return sum;
}

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

struct SymmetricSolver {
  at::Tensor factor;                     // lower Cholesky factor, or undefined
  at::Tensor eigenvectors, reciprocals;  // (t,t), (t,1) with zeros for what is left out
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

// A float32 Gram matrix's factor after its rows and columns are scaled to a diagonal of ones: it inverts well enough
// for refinement steps to do the rest, wherever columns are not too close to dependent.
struct QuickSolver {
  at::Tensor factor;  // (t,t) float32 or undefined
  at::Tensor scale;   // (t,1) float32, 1 / norm of each column

  explicit QuickSolver(const at::Tensor& gram) : scale(gram.diagonal().rsqrt().unsqueeze(1)) {
    const auto [lower, info] = at::linalg_cholesky_ex(gram * scale * scale.t());
    if (info.item<int>() != 0) return;
    factor = lower;
    const double largest = gram.abs().sum(1).max().item<double>();
    const auto inverse = [this](const at::Tensor& u) { return solve(u); };
    if (!above_cutoff(inverse, gram.size(0), gram.options().dtype(at::kDouble), largest)) factor = at::Tensor();
  }
  at::Tensor solve(const at::Tensor& b) const {
    return at::cholesky_solve(b.to(at::kFloat) * scale, factor).mul_(scale).to(at::kDouble);
  }
};

// By how much X may be off for a residual whose entries are off by rounding of float32: what the solver makes of an
// error of one sign in half of the columns, of another in the rest, as large as such sums of random errors are.
double rounding_of(const QuickSolver& solver, const Residual& residual) {
  constexpr double kUnit = 6e-8, kOfSums = 0.3;  // measured: 0.1 to 0.35 of a unit of ||A's column|| ||B - A X||
  const int64_t t = solver.scale.size(0);
  const at::Tensor error = at::arange(1, t + 1, solver.scale.options()).mul_(4.5).sin_().mul_(std::sqrt(2.0));
  const double amplified = solver.solve(error.unsqueeze(1) / solver.scale).norm().item<double>();
  return kOfSums * kUnit * amplified * std::sqrt(residual.squared);
}

// At least as many rows as columns, by a float32 Gram matrix and refinement. A first step by float32 products is enough
// where their rounding does not show. Nothing where it does not converge fast: float64 then has to do it.
std::optional<LeastSquares> solve_quickly(const at::Tensor& a, const at::Tensor& b, const at::Tensor& gram,
                                          const at::Tensor& moment) {
  const QuickSolver solver(gram);
  if (!solver.factor.defined()) return std::nullopt;
  at::Tensor x = solver.solve(moment);
  double last = x.norm().item<double>(), rate = 0;
  bool was_rough = false;
  for (int refinement = 0; refinement < kMostRefinements; ++refinement) {
    const bool rough = refinement == 0 && b.size(1) > 1;  // a single column costs no more in float64
    const Residual residual = rough ? rough_residual_of(a, b, x) : residual_of(a, b, x);
    const at::Tensor step = solver.solve(residual.gradient);
    x = x + step;
    const double length = step.norm().item<double>(), size = x.norm().item<double>();
    if (!std::isfinite(length) || length > kSlowest * last) return std::nullopt;
    // Each step leaves of the error what it left of the one before, which after a rough one is its rounding.
    if (!was_rough && last > 0) rate = length / last;
    if (length * rate <= kQuickError * size && (!rough || rounding_of(solver, residual) <= kQuickError * size)) {
      LeastSquares result;
      result.solution = x;
      // ||B - A (x before + step)||^2 with |A step|^2 = step . gradient up to the factor's rounding.
      const double gain = (step * residual.gradient).sum().item<double>();
      result.residual_norm = std::sqrt(std::max(0.0, residual.squared - gain));
      result.rank = a.size(1);
      return result;
    }
    if (!rough) last = length;
    was_rough = rough;
  }
  return std::nullopt;
}

// At least as many rows as columns. The refinement step brings the error of the normal equations from the square of the
// condition number down towards that of an orthogonal factorisation.
LeastSquares solve_tall(const at::Tensor& a, const at::Tensor& b, const Moments& moments) {
  const SymmetricSolver solver(moments.gram);
  const at::Tensor start = solver.solve(moments.moment);
  const Residual remainder = residual_of(a, b, start);
  const at::Tensor step = solver.solve(remainder.gradient);
  LeastSquares result;
  result.solution = start + step;
  // ||B - A (start + step)||^2, both corrections being of the size of rounding.
  const double squared =
      remainder.squared + (step * (at::mm(moments.gram, step) - 2 * remainder.gradient)).sum().item<double>();
  result.residual_norm = std::sqrt(squared < 0 ? 0.0 : squared);
  result.rank = solver.rank;
  result.solver = solver.kind();
  return result;
}

bool is_quick(const at::Tensor& a, int64_t t) {
  return t >= kQuickColumns && a.size(0) >= t && a.scalar_type() == at::kFloat;
}

LeastSquares solve_tall(const at::Tensor& a, const at::Tensor& b) {
  if (is_quick(a, a.size(1))) {
    if (std::optional<LeastSquares> quick = solve_quickly(a, b, quick_gram(a), at::mm(a.t(), b)))
      return *std::move(quick);
  }
  return solve_tall(a, b, Moments(a, b));
}

// Fewer rows than columns: X = A^T (A A^T)^+ B, refined once.
LeastSquares solve_wide(const at::Tensor& a32, const at::Tensor& b32) {
  const at::Tensor a = a32.to(at::kDouble), b = b32.to(at::kDouble);
  const SymmetricSolver solver(at::mm(a, a.t()));
  LeastSquares result;
  result.solution = at::mm(a.t(), solver.solve(b));
  result.solution = result.solution + at::mm(a.t(), solver.solve(b - at::mm(a, result.solution)));
  result.residual_norm = (b - at::mm(a, result.solution)).norm().item<double>();
  result.rank = solver.rank;
  result.solver = solver.kind();
  return result;
}

void check_system(const at::Tensor& a, const at::Tensor& b) {
  if (a.dim() != 2 || b.dim() < 1 || b.dim() > 2 || a.size(0) != b.size(0)) {
    throw broken(fmt::format("a system of {} dimensions and {} rows with a right-hand side of {} rows", a.dim(),
                             a.size(0), b.size(0)));
  }
}

}  // namespace

LeastSquares least_squares(const at::Tensor& a, const at::Tensor& b) {
  check_system(a, b);
  const int64_t t = a.size(1);
  const at::Tensor rhs = b.dim() == 1 ? b.unsqueeze(1) : b;
  LeastSquares result;
  if (t == 0 || a.size(0) == 0) {
    result.solution = at::zeros({t, rhs.size(1)}, rhs.options());
    result.residual_norm = rhs.numel() == 0 ? 0.0 : rhs.to(at::kDouble).norm().item<double>();
  } else {
    result = a.size(0) < t ? solve_wide(a, rhs) : solve_tall(a, rhs);
  }
  if (!std::isfinite(result.residual_norm)) throw broken("the data of a least-squares fit are not finite");
  result.solution = result.solution.to(at::kFloat);
  if (b.dim() == 1) result.solution = result.solution.squeeze(1);
  return result;
}

LeastSquares ridge(const at::Tensor& a, const at::Tensor& b, double lambda, RidgeScale scale) {
  check_system(a, b);
  if (!(lambda > 0)) throw broken(fmt::format("a ridge of {}", lambda));
  const int64_t n = a.size(0), t = a.size(1);
  const at::Tensor rhs = (b.dim() == 1 ? b.unsqueeze(1) : b).to(at::kDouble);
  const at::Tensor a64 = a.to(at::kDouble);
  const bool tall = n >= t;
  at::Tensor gram = tall ? at::mm(a64.t(), a64) : at::mm(a64, a64.t());
  double unit = 1;
  if (scale == RidgeScale::kFrobenius)
    unit = gram.trace().item<double>() / static_cast<double>(std::max<int64_t>(1, t));
  if (scale == RidgeScale::kSpectral && gram.numel() > 0) unit = at::linalg_eigvalsh(gram).max().item<double>();
  // At least what rounding needs to keep the matrix positive definite.
  const double floor = 1e-14 * gram.diagonal().abs().sum().item<double>() + 1e-300;
  gram.diagonal().add_(std::max(lambda * unit, floor));
  const at::Tensor factor = at::linalg_cholesky(gram);
  LeastSquares result;
  result.solution =
      tall ? at::cholesky_solve(at::mm(a64.t(), rhs), factor) : at::mm(a64.t(), at::cholesky_solve(rhs, factor));
  result.residual_norm = (rhs - at::mm(a64, result.solution)).norm().item<double>();
  result.rank = std::min(n, t);
  if (!std::isfinite(result.residual_norm)) throw broken("the data of a ridge fit are not finite");
  result.solution = result.solution.to(at::kFloat);
  if (b.dim() == 1) result.solution = result.solution.squeeze(1);
  return result;
}

NormalEquations::NormalEquations(const at::Tensor& a, const at::Tensor& y) {
  check_system(a, y);
  a_ = a;
  y_ = y.reshape({-1, 1});
  if (is_quick(a, a.size(1))) {
    quick_gram_ = quick_gram(a);
  } else {
    form();
  }
}

void NormalEquations::form() const {
  if (gram_.defined()) return;
  const Moments moments(a_, y_);
  gram_ = moments.gram;
  moment_ = moments.moment;
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
    fit.residual_norm = y_.to(at::kDouble).norm().item<double>();
    return fit;
  }
  const at::Tensor a = a_.narrow(1, 0, k);
  std::optional<LeastSquares> quick;
  Moments moments;
  if (quick_gram_.defined() && is_quick(a, k)) {
    const at::Tensor gram = quick_gram_.narrow(0, 0, k).narrow(1, 0, k);
    const at::Tensor moment = at::mm(a.t(), y_);
    quick = solve_quickly(a, y_, gram, moment);
    if (quick && settings.iterations > 0) {
      moments.gram = gram.to(at::kDouble).contiguous();
      moments.moment = moment.to(at::kDouble);
    }
  }
  if (!quick) {
    form();
    moments.gram = gram_.narrow(0, 0, k).narrow(1, 0, k).contiguous();
    moments.moment = moment_.narrow(0, 0, k);
  }
  const std::optional<double> upper = settings.upper;
  const auto clamp = [&](const at::Tensor& w) {
    return at::clamp(w, settings.lower, upper ? std::optional<at::Scalar>(*upper) : std::nullopt);
  };

  const LeastSquares start = quick ? *quick : a.size(0) >= k ? solve_tall(a, y_, moments) : solve_wide(a, y_);
  fit.rank = start.rank;
  fit.solver = start.solver;
  if (!std::isfinite(start.residual_norm)) throw broken("the data of a box-constrained fit are not finite");
  at::Tensor w = clamp(start.solution);
  if (settings.iterations > 0) {
    const double step = 1.0 / squared_spectral_norm(moments.gram, settings.seed);
    for (int64_t i = 0; i < settings.iterations; ++i) w = clamp(w - (at::mm(moments.gram, w) - moments.moment) * step);
  }
  fit.residual_norm = std::sqrt(residual_of(a, y_, w).squared);
  fit.n_at_lower = (w <= settings.lower).sum().item<int64_t>();
  fit.n_at_upper = upper ? (w >= *upper).sum().item<int64_t>() : 0;
  fit.solution = w.to(at::kFloat).squeeze(1);
  return fit;
}

namespace {

// Solves G_FF x = b_F on the free entries, 0 elsewhere. A little is added to the diagonal where G_FF is singular, which
// keeps a direction of descent.
at::Tensor solve_free(const at::Tensor& gram, const at::Tensor& b, const at::Tensor& free) {
  const at::Tensor index = at::nonzero(free).squeeze(1);
  at::Tensor solution = at::zeros_like(b);
  if (index.numel() == 0) return solution;
  at::Tensor part = gram.index_select(0, index).index_select(1, index);
  const double scale = part.diagonal().max().item<double>();
  for (double extra = 0; extra <= 1; extra = extra == 0 ? 1e-12 : extra * 100) {
    const auto [factor, info] =
        at::linalg_cholesky_ex(extra == 0 ? part : part + at::eye(part.size(0), part.options()) * (extra * scale));
    if (info.item<int>() != 0) continue;
    solution.index_copy_(0, index, at::cholesky_solve(b.index_select(0, index), factor));
    return solution;
  }
  return solution.index_copy_(0, index, b.index_select(0, index) / scale);
}

// The Newton step on the free entries; those on a bound that it would push outward are held too, so that what is left
// is a direction of descent along which the step can go.
at::Tensor newton_direction(const at::Tensor& gram, const at::Tensor& gradient, at::Tensor free, const at::Tensor& w,
                            double lower, double upper) {
  for (;;) {
    const at::Tensor direction = solve_free(gram, gradient, free.squeeze(1));
    const at::Tensor outward =
        at::logical_or(at::logical_and(w <= lower, direction > 0), at::logical_and(w >= upper, direction < 0));
    if (!outward.any().item<bool>()) return direction;
    free = at::logical_and(free, outward.logical_not());
  }
}

// One pass of coordinate descent.
at::Tensor sweep(const at::Tensor& gram, const at::Tensor& moment, const at::Tensor& start, double lower,
                 double upper) {
  const at::Tensor w = start.cpu().contiguous().clone(), g = gram.cpu().contiguous(), m = moment.cpu().contiguous();
  const int64_t k = w.size(0);
  auto* values = w.mutable_data_ptr<double>();
  for (int64_t j = 0; j < k; ++j) {
    const double* row = g.const_data_ptr<double>() + j * k;
    double slope = -m.const_data_ptr<double>()[j];
    for (int64_t i = 0; i < k; ++i) slope += row[i] * values[i];
    if (row[j] > 0) values[j] = std::clamp(values[j] - slope / row[j], lower, upper);
  }
  return w.to(start.device());
}

}  // namespace

BoxedFit NormalEquations::fit_active_set(int64_t k, const BoxSettings& settings) const {
  BoxedFit fit = fit_box(k, settings);
  if (k == 0) return fit;
  constexpr int kMostSteps = 200;
  form();
  const at::Tensor gram = gram_.narrow(0, 0, k).narrow(1, 0, k).contiguous();
  const at::Tensor moment = moment_.narrow(0, 0, k);
  const double upper = settings.upper.value_or(std::numeric_limits<double>::infinity());
  const auto clamp = [&](const at::Tensor& w) { return w.clamp(settings.lower, upper); };
  // Up to the constant ||y||^2 / 2.
  const auto objective = [&](const at::Tensor& w) {
    return ((at::mm(gram, w) * 0.5 - moment) * w).sum().item<double>();
  };
  at::Tensor w = clamp(fit.solution.to(at::kDouble).unsqueeze(1));
  const double tolerance = 1e-9 * moment.abs().max().item<double>();
  double value = objective(w);
  fit.converged = false;
  for (int step = 0; step < kMostSteps && !fit.converged; ++step) {
    const at::Tensor gradient = at::mm(gram, w) - moment;
    const at::Tensor held =
        at::logical_or(at::logical_and(w <= settings.lower, gradient > 0), at::logical_and(w >= upper, gradient < 0));
    const at::Tensor free = held.logical_not();
    if ((gradient.abs() * free).max().item<double>() <= tolerance) {
      fit.converged = true;
      break;
    }
    const at::Tensor direction = newton_direction(gram, gradient, free, w, settings.lower, upper);
    bool lower_value = false;
    for (double length = 1; length > 1e-10; length *= 0.5) {
      const at::Tensor next = clamp(w - direction * length);
      const double next_value = objective(next);
      if (next_value >= value) continue;
      w = next;
      value = next_value;
      lower_value = true;
      break;
    }
    if (lower_value) continue;
    // A sweep over single entries goes lower wherever anything does.
    const at::Tensor next = sweep(gram, moment, w, settings.lower, upper);
    const double next_value = objective(next);
    if (next_value < value) {
      w = next;
      value = next_value;
    } else {
      fit.converged = true;  // the minimum to working accuracy
    }
  }
  fit.residual_norm = std::sqrt(residual_of(a_.narrow(1, 0, k), y_, w).squared);
  fit.n_at_lower = (w <= settings.lower).sum().item<int64_t>();
  fit.n_at_upper = settings.upper ? (w >= upper).sum().item<int64_t>() : 0;
  fit.solution = w.to(at::kFloat).squeeze(1);
  return fit;
}

}  // namespace kvc
