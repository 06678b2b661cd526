#include "harness/math/linear_systems.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/math/residual.h"
#include "harness/math/symmetric_solver.h"

namespace kvc::systems {
namespace {

// From so many columns on the Gram matrix is tried in float32: below, float64 costs too little to matter.
constexpr int64_t kQuickColumns = 32;
// Refinement of a float32 factor: the most steps, the part of the last one that may remain, and what may be left of the
// solution's error.
constexpr int kMaxRefinements = 3;
constexpr double kSlowest = 0.2;
constexpr double kQuickError = 3e-6;

// By how much X may be off because the products behind a residual were rounded to float32: what the solver makes of an
// error without a pattern in A^T (B - A X), as large as those of such sums are.
double rounding_of(const QuickSolver& solver, const Residual& residual) {
  constexpr double kUnit = 6e-8, kOfSums = 0.3;  // measured: 0.1 to 0.35 units of |column| ||B - A X||
  const int64_t t = solver.scale.size(0);
  const at::Tensor error = at::arange(1, t + 1, solver.scale.options()).mul_(4.5).sin_().mul_(std::sqrt(2.0));
  const double amplified = solver.solve(error.unsqueeze(1) / solver.scale).norm().item<double>();
  return kOfSums * kUnit * amplified * std::sqrt(residual.squared);
}

}  // namespace

Error broken(const std::string& fact) {
  return Error(ErrorKind::kInternal, fact, "least squares", "this is a bug of the program; please report it");
}

void check_system(const at::Tensor& a, const at::Tensor& b) {
  if (a.dim() != 2 || b.dim() < 1 || b.dim() > 2 || a.size(0) != b.size(0)) {
    throw broken(fmt::format("a system of {} dimensions and {} rows with a right-hand side of {} rows", a.dim(),
                             a.size(0), b.size(0)));
  }
}

FitRoute route_of(const at::Tensor& a, std::optional<FitRoute> asked) {
  return asked ? *asked : a.is_cpu() ? FitRoute::kRefined : gpu_fit_route();
}

bool is_quick(const at::Tensor& a, int64_t t, FitRoute route) {
  return route == FitRoute::kRefined && t >= kQuickColumns && a.size(0) >= t && a.scalar_type() == at::kFloat;
}

std::optional<LeastSquares> solve_quickly(const at::Tensor& a, const at::Tensor& b, const at::Tensor& gram,
                                          const at::Tensor& moment) {
  const QuickSolver solver(gram);
  if (!solver.factor.defined()) return std::nullopt;
  at::Tensor x = solver.solve(moment);
  double last = x.norm().item<double>(), rate = 0;
  bool was_rough = false;
  for (int refinement = 0; refinement < kMaxRefinements; ++refinement) {
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

}  // namespace kvc::systems
