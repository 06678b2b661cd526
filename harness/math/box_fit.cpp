// Normal equations solved within a box: clamped least squares and projected-gradient steps.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "harness/math/gram_matrix.h"
#include "harness/math/least_squares.h"
#include "harness/math/linear_systems.h"
#include "harness/math/residual.h"

namespace kvc {

using namespace systems;

namespace {

// Squared spectral norm of A from its Gram matrix by three power iterations. They begin with the row sums of its
// magnitudes, where the published code draws a random vector: the same for every seed, and for attention weights, which
// are positive, close to the leading eigenvector already.
double squared_spectral_norm(const at::Tensor& gram) {
  constexpr double kTiny = 1e-12;
  constexpr double kSmallest = 1e-6;
  at::Tensor u = gram.abs().sum(1, /*keepdim=*/true);
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

NormalEquations::NormalEquations(const at::Tensor& a, const at::Tensor& y, std::optional<FitRoute> route)
    : route_(route_of(a, route)) {
  check_system(a, y);
  a_ = a;
  y_ = y.reshape({-1, 1});
  if (is_quick(a, a.size(1), route_)) {
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
  if (quick_gram_.defined() && is_quick(a, k, route_)) {
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
    const double step = 1.0 / squared_spectral_norm(moments.gram);
    for (int64_t i = 0; i < settings.iterations; ++i) w = clamp(w - (at::mm(moments.gram, w) - moments.moment) * step);
  }
  fit.residual_norm = std::sqrt(residual_of(a, y_, w).squared);
  fit.n_at_lower = (w <= settings.lower).sum().item<int64_t>();
  fit.n_at_upper = upper ? (w >= *upper).sum().item<int64_t>() : 0;
  fit.solution = w.to(at::kFloat).squeeze(1);
  return fit;
}

}  // namespace kvc
