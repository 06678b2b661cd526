// Normal equations solved within a box, to the minimum.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/math/least_squares.h"
#include "harness/math/residual.h"

namespace kvc {
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
  at::Tensor direction;
  for (int64_t pass = 0; pass <= w.size(0); ++pass) {  // each holds one more at least
    direction = solve_free(gram, gradient, free.squeeze(1));
    const at::Tensor outward =
        at::logical_or(at::logical_and(w <= lower, direction > 0), at::logical_and(w >= upper, direction < 0));
    if (!outward.any().item<bool>()) break;
    free = at::logical_and(free, outward.logical_not());
  }
  return direction;
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
