#include "harness/math/batched_least_squares.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/math/block_cholesky.h"
#include "harness/math/linear_systems.h"
#include "harness/math/row_blocks.h"

namespace kvc {
namespace {

constexpr int64_t kPanelsOfBatch = 8;
constexpr int64_t kPanelColumns = 64;
constexpr int64_t kRowsInFloat32 = 4096;   // in float32, before such sums are added in float64
constexpr int kBatchRefinements = 3;       // of a float32 factor
constexpr double kSlowestShrinking = 0.2;  // as linear_systems.cpp: part of the last step that may remain,
constexpr double kBatchError = 3e-6;       // and what may be left of the solution's error
constexpr double kOfRounding = 1e-10;
// Of a float32 factor's largest eigenvalue: smaller ones may be rounding errors of zero.
constexpr double kFloat32Cutoff = 1e-6;

struct BatchedMoments {
  at::Tensor gram;    // (H,t,t) float64
  at::Tensor moment;  // (H,t,m) float64
};

// Calls work((H, rows, t + m)) with rows of A and B beside each other in `dtype`, at most `most` rows at a time.
template <class Work>
void for_each_rows(const at::Tensor& a, const at::Tensor& b, at::ScalarType dtype, int64_t most, const Work& work) {
  const int64_t heads = a.size(0), n = a.size(1), t = a.size(2), m = b.size(2);
  most = std::min({most, n, std::max(kBlockRows, kDeviceBlockNumbers / std::max<int64_t>(1, heads * (t + m)))});
  const at::Tensor memory = at::empty({heads * most * (t + m)}, a.options().dtype(dtype));
  for (int64_t first = 0; first < n; first += most) {
    const int64_t here = std::min(most, n - first);
    const at::Tensor joined = memory.narrow(0, 0, heads * here * (t + m)).view({heads, here, t + m});
    joined.narrow(2, 0, t).copy_(a.narrow(1, first, here));
    joined.narrow(2, t, m).copy_(b.narrow(1, first, here));
    work(joined);
  }
}

// Panels of [G | A^T B] from the diagonal on, added to `sums` or, with beta 0, in its place.
void add_panels(at::Tensor& sums, const at::Tensor& joined, double beta) {
  const int64_t t = sums.size(1), all = sums.size(2);
  const int64_t width = std::max(kPanelColumns, (t + kPanelsOfBatch - 1) / kPanelsOfBatch);
  for (int64_t first = 0; first < t; first += width) {
    const int64_t here = std::min(width, t - first);
    sums.narrow(1, first, here)
        .narrow(2, first, all - first)
        .baddbmm_(joined.narrow(2, first, here).transpose(1, 2), joined.narrow(2, first, all - first), beta);
  }
}

BatchedMoments moments_of(const at::Tensor& a, const at::Tensor& b, FitRoute route) {
  const int64_t heads = a.size(0), t = a.size(2), m = b.size(2);
  const bool doubles = route == FitRoute::kDouble;
  at::Tensor sums = at::zeros({heads, t, t + m}, a.options().dtype(at::kDouble)), some;
  if (!doubles) some = at::zeros({heads, t, t + m}, a.options());
  for_each_rows(a, b, doubles ? at::kDouble : at::kFloat,
                doubles ? std::numeric_limits<int64_t>::max() : kRowsInFloat32, [&](const at::Tensor& joined) {
                  add_panels(doubles ? sums : some, joined, doubles ? 1 : 0);
                  if (!doubles) sums.add_(some);
                });
  const int64_t width = std::max(kPanelColumns, (t + kPanelsOfBatch - 1) / kPanelsOfBatch);
  for (int64_t first = 0; first + width < t; first += width) {  // the rest by symmetry
    const int64_t next = first + width;
    sums.narrow(1, next, t - next)
        .narrow(2, first, width)
        .copy_(sums.narrow(1, first, width).narrow(2, next, t - next).transpose(1, 2));
  }
  return {sums.narrow(2, 0, t), sums.narrow(2, t, m)};
}

// A^T (B - A X) in float64.
at::Tensor gradient_of(const at::Tensor& a, const at::Tensor& b, const at::Tensor& x) {
  const int64_t t = a.size(2), m = b.size(2);
  at::Tensor gradient = at::zeros_like(x);
  for_each_rows(a, b, at::kDouble, std::numeric_limits<int64_t>::max(), [&](const at::Tensor& joined) {
    const at::Tensor rows = joined.narrow(2, 0, t), residual = joined.narrow(2, t, m);
    residual.baddbmm_(rows, x, 1, -1);
    gradient.baddbmm_(rows.transpose(1, 2), residual);
  });
  return gradient;
}

at::Tensor norms(const at::Tensor& x) {  // (H)
  return at::linalg_vector_norm(x.flatten(1), 2, 1);
}

// The factor of G scaled to a diagonal of ones, columns that are left out being unit ones.
class ScaledFactor {
 public:
  ScaledFactor(const at::Tensor& gram, at::ScalarType dtype)
      : kept_(is_kept(gram)),
        scale_(at::where(kept_, gram.diagonal(0, 1, 2).rsqrt(), at::zeros({}, gram.options())).unsqueeze(2)),
        factor_(scaled(gram, dtype)) {}

  const at::Tensor& kept() const { return kept_; }
  at::Tensor solve(const at::Tensor& b) const {
    return factor_.solve(b.mul(scale_).to(dtype_)).to(at::kDouble).mul_(scale_);
  }
  // Whether no column depends on others, judged by three steps of inverse iteration: (H).
  at::Tensor above_cutoff() const {
    const int64_t t = scale_.size(1);
    at::Tensor u =
        at::arange(1, t + 1, scale_.options()).mul_(0.618).sin_().add_(0.1).view({1, t, 1}) * kept_.unsqueeze(2);
    at::Tensor inverse_eigenvalue;
    for (int step = 0; step < 3; ++step) {
      u = factor_.solve((u / norms(u).view({-1, 1, 1})).to(dtype_)).to(at::kDouble);
      inverse_eigenvalue = norms(u);
    }
    // Heads without any column have a norm of 0 / 0: nothing to solve, and 0 is the solution.
    const double cutoff = dtype_ == at::kDouble ? kRankCutoff * kRankCutoff : kFloat32Cutoff;
    const at::Tensor fine = inverse_eigenvalue * largest_ * cutoff < 1.0;
    return at::logical_or(fine, kept_.any(1).logical_not()).logical_and_(factor_.failed().logical_not());
  }

 private:
  static at::Tensor is_kept(const at::Tensor& gram) {
    const at::Tensor largest = gram.abs().sum(2).amax(1, /*keepdim=*/true);  // no eigenvalue is larger
    return gram.diagonal(0, 1, 2) > largest * (kRankCutoff * kRankCutoff);
  }
  at::Tensor scaled(const at::Tensor& gram, at::ScalarType dtype) {
    dtype_ = dtype;
    at::Tensor all = gram * scale_;
    all.mul_(scale_.transpose(1, 2));
    all.diagonal(0, 1, 2).masked_fill_(kept_.logical_not(), 1.0);
    largest_ = all.abs().sum(2).amax(1);
    return all.to(dtype);
  }

  at::ScalarType dtype_ = at::kDouble;
  at::Tensor kept_;     // (H,t) bool
  at::Tensor scale_;    // (H,t,1) float64, 0 where a column is left out
  at::Tensor largest_;  // (H)
  BlockCholesky factor_;
};

BatchedSolution solve_batch(const at::Tensor& a, const at::Tensor& b, const BatchedMoments& moments, FitRoute route) {
  const bool doubles = route == FitRoute::kDouble;
  const ScaledFactor factor(moments.gram, doubles ? at::kDouble : at::kFloat);
  BatchedSolution result;
  result.trusted = factor.above_cutoff();
  result.rank = factor.kept().sum(1);
  at::Tensor x = factor.solve(moments.moment), last = norms(x), rate;
  for (int refinement = 0; refinement < (doubles ? 1 : kBatchRefinements); ++refinement) {
    const at::Tensor step = factor.solve(gradient_of(a, b, x));
    x.add_(step);
    if (doubles) break;
    const at::Tensor length = norms(step);
    rate = at::where(last > 0, length / last, at::zeros_like(last));
    last = length;
  }
  result.trusted.logical_and_(x.isfinite().flatten(1).all(1));
  if (!doubles) {
    // The next step would be smaller than the last by `rate`. Steps of the size of rounding shrink no further.
    const at::Tensor size = norms(x),
                     shrinks = at::logical_and(rate <= kSlowestShrinking, last * rate <= kBatchError * size);
    result.trusted.logical_and_(at::logical_or(shrinks, last <= kOfRounding * size));
  }
  result.solution = x;
  return result;
}

void check_batch(const at::Tensor& a, const at::Tensor& b) {
  if (a.dim() != 3 || b.dim() != 3 || a.size(0) != b.size(0) || a.size(1) != b.size(1) || a.size(1) < a.size(2) ||
      a.size(0) == 0 || a.size(2) == 0) {
    throw systems::broken(fmt::format("{} systems of {} rows and {} columns beside {} of {} rows", a.size(0), a.size(1),
                                      a.dim() == 3 ? a.size(2) : 0, b.size(0), b.size(1)));
  }
}

// 1 / squared spectral norm of A, as box_fit.cpp estimates it: (H,1,1).
at::Tensor step_length(const at::Tensor& gram) {
  constexpr double kTiny = 1e-12, kSmallest = 1e-6;
  const auto normed = [&](const at::Tensor& u) { return u / (norms(u).view({-1, 1, 1}) + kTiny); };
  at::Tensor u = normed(gram.abs().sum(2, /*keepdim=*/true));
  for (int step = 0; step < 3; ++step) u = normed(at::bmm(gram, u));
  const at::Tensor sigma = (u * at::bmm(gram, u)).sum(1, true).clamp_min(0.0).sqrt_().clamp_min_(kSmallest);
  return sigma.square_().clamp_min_(kSmallest).reciprocal_();
}

}  // namespace

BatchedSolution batched_least_squares(const at::Tensor& a, const at::Tensor& b, std::optional<FitRoute> route) {
  check_batch(a, b);
  const FitRoute way = systems::route_of(a, route);
  return solve_batch(a, b, moments_of(a, b, way), way);
}

BatchedBoxedFit batched_fit_box(const at::Tensor& a, const at::Tensor& y, const at::Tensor& present,
                                const BoxSettings& settings, std::optional<FitRoute> route) {
  const at::Tensor rhs = y.unsqueeze(2);
  check_batch(a, rhs);
  const FitRoute way = systems::route_of(a, route);
  const BatchedMoments moments = moments_of(a, rhs, way);
  const BatchedSolution start = solve_batch(a, rhs, moments, way);
  const auto clamped = [&](const at::Tensor& w) {
    return at::clamp(w, settings.lower, settings.upper ? std::optional<at::Scalar>(*settings.upper) : std::nullopt);
  };
  at::Tensor w = clamped(start.solution);
  if (settings.iterations > 0) {
    const at::Tensor step = step_length(moments.gram);
    for (int64_t i = 0; i < settings.iterations; ++i) {
      w = clamped(w - (at::bmm(moments.gram, w) - moments.moment) * step);
    }
  }
  w = w.squeeze(2);
  at::Tensor at_bound = w <= settings.lower;
  if (settings.upper) at_bound = at::logical_or(at_bound, w >= *settings.upper);
  BatchedBoxedFit fit;
  fit.n_at_bound = at::logical_and(at_bound, present).sum(1);
  fit.solution = w.to(at::kFloat).masked_fill_(present.logical_not(), 0.0);
  fit.rank = start.rank;
  fit.trusted = at::logical_and(start.trusted, w.isfinite().all(1));
  return fit;
}

}  // namespace kvc
