#include "harness/math/least_squares.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <utility>

#include "harness/math/gram_matrix.h"
#include "harness/math/linear_systems.h"

namespace kvc {

using namespace systems;

namespace {

std::atomic<FitRoute> g_gpu_route = FitRoute::kRefined;

// Columns whose length alone puts them below the cut-off carry nothing above it, and the solution of smallest norm has
// next to nothing there: 0 here. Attention weights of entries that no query looks at are such columns; without them the
// others need no eigenvectors. Nothing where no column is that short.
std::optional<LeastSquares> solve_without_short_columns(const at::Tensor& a, const at::Tensor& b,
                                                        const at::Tensor& gram, const at::Tensor& moment) {
  const double largest = gram.abs().sum(1).max().item<double>();  // no eigenvalue is larger
  const at::Tensor kept = gram.diagonal().gt(kRankCutoff * kRankCutoff * largest).nonzero().flatten();
  const int64_t rank = kept.size(0);
  if (rank == a.size(1) || !is_quick(a, rank, FitRoute::kRefined)) return std::nullopt;
  std::optional<LeastSquares> some =
      solve_quickly(a.index_select(1, kept), b, gram.index_select(0, kept).index_select(1, kept).contiguous(),
                    moment.index_select(0, kept));
  if (!some) return std::nullopt;
  at::Tensor all = at::zeros({a.size(1), b.size(1)}, some->solution.options());
  some->solution = all.index_copy_(0, kept, some->solution);
  some->rank = rank;
  return some;
}

// The same in float64, whatever is left of the columns.
LeastSquares solve_double(const at::Tensor& a, const at::Tensor& b) {
  const Moments all(a, b);
  const double largest = all.gram.abs().sum(1).max().item<double>();
  const at::Tensor kept = all.gram.diagonal().gt(kRankCutoff * kRankCutoff * largest).nonzero().flatten();
  const int64_t rank = kept.size(0);
  if (rank == a.size(1) || rank == 0) return systems::solve_tall(a, b, all);
  Moments some;
  some.gram = all.gram.index_select(0, kept).index_select(1, kept).contiguous();
  some.moment = all.moment.index_select(0, kept);
  LeastSquares result = systems::solve_tall(a.index_select(1, kept), b, some);
  at::Tensor solution = at::zeros({a.size(1), b.size(1)}, result.solution.options());
  result.solution = solution.index_copy_(0, kept, result.solution);
  return result;
}

LeastSquares solve_tall(const at::Tensor& a, const at::Tensor& b, FitRoute route) {
  if (route == FitRoute::kDouble) return solve_double(a, b);
  if (is_quick(a, a.size(1), route)) {
    const at::Tensor gram = quick_gram(a), moment = at::mm(a.t(), b);
    std::optional<LeastSquares> quick = solve_without_short_columns(a, b, gram, moment);
    if (!quick) quick = solve_quickly(a, b, gram, moment);
    if (quick) return *std::move(quick);
  }
  return systems::solve_tall(a, b, Moments(a, b));
}

}  // namespace

FitRoute gpu_fit_route() {
  return g_gpu_route;
}

void set_gpu_fit_route(FitRoute route) {
  g_gpu_route = route;
}

LeastSquares least_squares(const at::Tensor& a, const at::Tensor& b, std::optional<FitRoute> route) {
  check_system(a, b);
  const int64_t t = a.size(1);
  const at::Tensor rhs = b.dim() == 1 ? b.unsqueeze(1) : b;
  LeastSquares result;
  if (t == 0 || a.size(0) == 0) {
    result.solution = at::zeros({t, rhs.size(1)}, rhs.options());
    result.residual_norm = rhs.numel() == 0 ? 0.0 : rhs.to(at::kDouble).norm().item<double>();
  } else {
    result = a.size(0) < t ? solve_wide(a, rhs) : solve_tall(a, rhs, route_of(a, route));
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

}  // namespace kvc
