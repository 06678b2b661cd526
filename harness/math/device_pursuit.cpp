#include "harness/math/device_pursuit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "harness/core/error.h"
#include "harness/math/float_product.h"
#include "harness/math/least_squares.h"

namespace kvc {

namespace {

constexpr int64_t kCandidates = 64;   // compared in float64
constexpr double kRounding = 4e-6;    // of the largest E^T y: what float32 leaves uncertain in a correlation
constexpr double kDependent = 1e-10;  // of a column's squared norm: what others leave of it when they span it
constexpr int kMostRefinements = 3;

std::vector<int64_t> indices_of(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU, at::kLong).contiguous();
  return {host.const_data_ptr<int64_t>(), host.const_data_ptr<int64_t>() + host.numel()};
}

std::vector<double> numbers_of(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU, at::kDouble).contiguous();
  return {host.const_data_ptr<double>(), host.const_data_ptr<double>() + host.numel()};
}

}  // namespace

// A pursuit under way, with room for `capacity` picks; what is behind `size` is not set.
struct DevicePursuit::State {
  int64_t size = 0;
  int64_t n_taken = 0;  // picks and keys that were dropped
  int64_t iteration = 0;
  bool solved = false;   // weights are those of a solve, with lower bounds for keys picked since
  at::Tensor order;      // (capacity) int64
  at::Tensor columns;    // (capacity, n) float64
  at::Tensor gram;       // (capacity, capacity) float64
  at::Tensor inverse;    // likewise: M, lower; a row of zeros where the pick is dependent
  at::Tensor moment;     // (capacity) column . y
  at::Tensor forward;    // (capacity) M E^T y
  at::Tensor dependent;  // (capacity) bool
  at::Tensor weights;    // (capacity) float64
  at::Tensor cuts;       // (capacity) int64: choices cut so far, after each pick
  at::Tensor n_cut;      // () int64
  at::Tensor taken;      // (T) bool

  State() = default;
  State(int64_t capacity, int64_t n, int64_t source_len, const at::TensorOptions& doubles) {
    const at::TensorOptions whole = doubles.dtype(at::kLong), flags = doubles.dtype(at::kBool);
    order = at::empty({capacity}, whole);
    columns = at::empty({capacity, n}, doubles);
    gram = at::zeros({capacity, capacity}, doubles);
    inverse = at::zeros({capacity, capacity}, doubles);
    moment = at::zeros({capacity}, doubles);
    forward = at::zeros({capacity}, doubles);
    dependent = at::zeros({capacity}, flags);
    weights = at::zeros({capacity}, doubles);
    cuts = at::zeros({capacity}, whole);
    n_cut = at::zeros({}, whole);
    taken = at::zeros({source_len}, flags);
  }
};

DevicePursuit::DevicePursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                             const at::Tensor& row_max, const at::Tensor& row_sum, const PursuitSettings& settings)
    : settings_(settings), target_(row_sum.to(at::kDouble).view(-1)) {
  table_ = float_product(keys, queries.to(keys.scalar_type()).t());
  table_.mul_(1.0 / std::sqrt(static_cast<double>(keys.size(1))));
  if (bias.defined()) table_.add_(bias.to(at::kFloat).unsqueeze(1));
  table_.sub_(row_max.view({1, -1})).exp_();
  margin_ = at::mv(table_, row_sum.view(-1).to(at::kFloat)).amax().to(at::kDouble) * (2 * kRounding);
}

DevicePursuit::~DevicePursuit() = default;

at::Tensor DevicePursuit::residual(const State& state) const {
  if (state.size == 0) return target_;
  return target_ - at::mv(state.columns.narrow(0, 0, state.size).t(), state.weights.narrow(0, 0, state.size));
}

// The k keys of highest correlation that are not taken, highest first, equal ones in order of position: (k) int64.
at::Tensor DevicePursuit::best(State& state, int64_t k) const {
  const at::Tensor rest = residual(state);
  const int64_t left = table_.size(0) - state.n_taken, n = std::min(std::max(kCandidates, k), left);
  at::Tensor rough = at::mv(table_, rest.to(at::kFloat));
  rough.masked_fill_(state.taken, -std::numeric_limits<float>::infinity());
  const auto [values, found] = at::topk(rough, n);
  if (left > n) {
    const at::Tensor least = values.narrow(0, k - 1, 1).to(at::kDouble) - margin_;
    state.n_cut.add_(rough.to(at::kDouble).ge(least).sum().gt(n));
  }
  const at::Tensor candidates = std::get<0>(at::sort(found));
  const at::Tensor exact = at::mv(table_.index_select(0, candidates).to(at::kDouble), rest);
  const at::Tensor by_height = std::get<1>(at::sort(exact, /*stable=*/true, 0, /*descending=*/true));
  return candidates.index_select(0, by_height.narrow(0, 0, k));
}

// key: (1) int64.
void DevicePursuit::add(State& state, const at::Tensor& key) const {
  const int64_t k = state.size;
  state.order.narrow(0, k, 1).copy_(key);
  state.taken.index_fill_(0, key, true);
  ++state.n_taken;
  const at::Tensor column = state.columns[k];
  column.copy_(table_.index_select(0, key).squeeze(0));
  push(state, at::mv(state.columns.narrow(0, 0, k + 1), column), at::dot(column, target_));
}

// Appends the pick's row of the Gram matrix, with the picks before it and itself (k + 1), of M and of M E^T y.
void DevicePursuit::push(State& state, const at::Tensor& gram, const at::Tensor& moment) const {
  const int64_t k = state.size;
  const at::Tensor own = gram[k];
  at::Tensor rest = own, spanned, forward = moment;
  if (k > 0) {
    const at::Tensor inverse = state.inverse.narrow(0, 0, k).narrow(1, 0, k);
    const at::Tensor factor = at::mv(inverse, gram.narrow(0, 0, k));
    rest = own - at::dot(factor, factor);
    spanned = at::mv(inverse.t(), factor);
    forward = moment - at::dot(factor, state.forward.narrow(0, 0, k));
  }
  const at::Tensor independent = rest > own * kDependent;
  const at::Tensor scale = at::where(independent, rest.abs().rsqrt(), at::zeros_like(rest));
  if (k > 0) state.inverse[k].narrow(0, 0, k).copy_(spanned.mul_(-scale));
  state.inverse[k][k].copy_(scale);
  state.forward[k].copy_(forward * scale);
  state.gram[k].narrow(0, 0, k + 1).copy_(gram);
  state.gram.select(1, k).narrow(0, 0, k + 1).copy_(gram);
  state.moment[k].copy_(moment);
  state.dependent[k].copy_(independent.logical_not());
  state.weights[k].fill_(settings_.lower);
  ++state.size;
}

// Clamped least squares over all picks.
void DevicePursuit::solve(State& state) const {
  state.solved = true;
  if (state.size == 0) return;
  const int64_t k = state.size;
  const at::Tensor w = at::mv(state.inverse.narrow(0, 0, k).narrow(1, 0, k).t(), state.forward.narrow(0, 0, k))
                           .clamp_(settings_.lower, settings_.upper)
                           .masked_fill_(state.dependent.narrow(0, 0, k), settings_.lower);
  state.weights.narrow(0, 0, k).copy_(w);
}

// One iteration towards `target` picks; false when no key is left.
bool DevicePursuit::advance(State& state, int64_t target) const {
  const PursuitSchedule now = pursuit_schedule(settings_, state.size);
  const int64_t k = std::min({now.k_choice, target - state.size, table_.size(0) - state.n_taken});
  if (k == 0) return false;
  const at::Tensor keys = best(state, k);
  for (int64_t i = 0; i < k; ++i) {
    add(state, keys.narrow(0, i, 1));
    state.cuts[state.size - 1].copy_(state.n_cut);
  }
  if (!state.solved || state.iteration % now.nnls_interval == 0) solve(state);
  ++state.iteration;
  return true;
}

void DevicePursuit::run(int64_t most) {
  if (most < 0 || most > table_.size(0)) {
    throw Error(ErrorKind::kInternal, "more picks are asked for than there are keys", "matching pursuit", "");
  }
  path_ = std::make_unique<State>(most, table_.size(1), table_.size(0), target_.options());
  iterations_.clear();
  while (path_->size < most && advance(*path_, most)) {
    iterations_.resize(static_cast<size_t>(path_->size), path_->iteration);
  }
}

// The first picks of the path; it shares what does not change.
DevicePursuit::State DevicePursuit::prefix(int64_t n_picks) const {
  State part = *path_;
  part.size = n_picks;
  part.n_taken = n_picks;
  part.iteration = n_picks > 0 ? iterations_[static_cast<size_t>(n_picks - 1)] : 0;
  part.weights = path_->weights.clone();
  part.n_cut = n_picks > 0 ? path_->cuts[n_picks - 1].clone() : at::zeros_like(path_->n_cut);
  part.taken = at::zeros_like(path_->taken).index_fill_(0, path_->order.narrow(0, 0, n_picks), true);
  return part;
}

// A state of its own of the picks `kept`; the others stay excluded.
DevicePursuit::State DevicePursuit::without(const State& state, const std::vector<int64_t>& kept,
                                            int64_t capacity) const {
  const auto n = static_cast<int64_t>(kept.size());
  const at::Tensor index = at::tensor(kept, at::kLong).to(table_.device());
  State next(capacity, table_.size(1), table_.size(0), target_.options());
  next.order.narrow(0, 0, n).copy_(state.order.index_select(0, index));
  next.columns.narrow(0, 0, n).copy_(state.columns.index_select(0, index));
  const at::Tensor gram = state.gram.index_select(0, index).index_select(1, index);
  const at::Tensor moment = state.moment.index_select(0, index);
  for (int64_t k = 0; k < n; ++k) push(next, gram[k].narrow(0, 0, k + 1), moment[k]);
  next.taken.copy_(state.taken);
  next.n_taken = state.n_taken;
  next.iteration = state.iteration + 1;
  next.n_cut.copy_(state.n_cut);
  return next;
}

PursuitPicks DevicePursuit::picks(int64_t target) const {
  State state = prefix(std::min(target, path_->size));
  solve(state);
  PursuitPicks result;
  for (int refinement = 0; settings_.drop_below && refinement < kMostRefinements; ++refinement) {
    const std::vector<double> weights = numbers_of(state.weights.narrow(0, 0, state.size));
    std::vector<int64_t> kept;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (!(std::log(weights[i]) < *settings_.drop_below)) kept.push_back(static_cast<int64_t>(i));
    }
    if (kept.size() == weights.size()) break;
    result.n_dropped += static_cast<int64_t>(weights.size() - kept.size());
    state = without(state, kept, target);
    solve(state);
    state.solved = false;  // the first iteration after a drop solves whatever the interval
    while (state.size < target && advance(state, target)) {
    }
    solve(state);
  }
  const at::Tensor dependent = state.dependent.narrow(0, 0, state.size);
  const at::Tensor rest = residual(state);
  // As MatchingPursuit: clamped least squares of picks that span one another can be worse than no weights at all.
  const std::vector<double> facts = numbers_of(at::stack(
      {dependent.sum().to(at::kDouble), state.n_cut.to(at::kDouble), at::dot(rest, rest), at::dot(target_, target_)}));
  result.order = indices_of(state.order.narrow(0, 0, state.size));
  result.n_dependent = static_cast<int64_t>(facts[0]);
  result.n_cut = static_cast<int64_t>(facts[1]);
  if (result.n_dependent == 0 && !(facts[2] > facts[3])) {
    result.weights = numbers_of(state.weights.narrow(0, 0, state.size));
    return result;
  }
  const at::Tensor columns = state.columns.narrow(0, 0, state.size).to(at::kFloat).t().contiguous();
  const NormalEquations equations(columns, target_.to(at::kFloat));
  result.weights = numbers_of(equations.fit_active_set(state.size, {settings_.lower, settings_.upper}).solution);
  for (double& w : result.weights) w = std::clamp(w, settings_.lower, settings_.upper);  // float32 rounds the bounds
  return result;
}

std::unique_ptr<Pursuit> make_pursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                      const at::Tensor& row_max, const at::Tensor& row_sum,
                                      const PursuitSettings& settings) {
  if (keys.is_cpu()) return std::make_unique<MatchingPursuit>(queries, keys, bias, row_max, row_sum, settings);
  return std::make_unique<DevicePursuit>(queries, keys, bias, row_max, row_sum, settings);
}

}  // namespace kvc
