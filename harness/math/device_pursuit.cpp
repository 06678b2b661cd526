#include "harness/math/device_pursuit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include "harness/core/error.h"
#include "harness/math/device_pursuit_state.h"
#include "harness/math/least_squares.h"
#include "harness/math/product_statistics.h"

namespace kvc {

namespace {

constexpr int64_t kCandidates = kPursuitCandidates;  // compared in float64
constexpr double kRounding = 4e-6;  // of the largest E^T y: what float32 leaves uncertain in a correlation
// Choices before the first check, for correlations fall fast in the beginning, and the fewest between two.
constexpr int64_t kFirstChoices = 8, kFewestChoices = 4;
constexpr double kNowhere = -std::numeric_limits<double>::infinity();

}  // namespace

DevicePursuits::DevicePursuits(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                               const at::Tensor& row_max, const at::Tensor& row_sum, const PursuitSettings& settings,
                               const KeysAtHand& at_hand, const PursuitKernels* kernels)
    : settings_(settings),
      at_hand_{std::max(at_hand.keys, kCandidates + 1), std::max<int64_t>(at_hand.choices, 1)},
      kernels_(kernels != nullptr && settings.k_choice <= kernels->most_picks ? kernels : nullptr),
      target_(row_sum.to(at::kDouble).squeeze(2)) {
  // Rows of keys: logits of "queries" that are the keys.
  table_ = at::empty({keys.size(0), keys.size(1), queries.size(1)}, keys.options().dtype(at::kFloat));
  logits_into(table_, keys, queries.to(keys.scalar_type()), {});
  if (bias.defined()) table_.add_(bias.to(at::kFloat).unsqueeze(2));
  table_.sub_(row_max.transpose(1, 2)).exp_();
  const at::Tensor moments = at::bmm(table_, row_sum.to(at::kFloat));
  margin_ = moments.amax({1, 2}).to(at::kDouble) * (2 * kRounding);
}

DevicePursuits::~DevicePursuits() = default;

int64_t DevicePursuits::bytes(int64_t n_queries, int64_t source_len, int64_t target_len, bool with_kernels) {
  const KeysAtHand usual;
  const int64_t columns = with_kernels ? 0 : target_len * n_queries + n_queries * usual.keys / 2;
  const int64_t work = with_kernels ? pursuit_work(n_queries, source_len, target_len) : 0;
  // A second set of picks where keys are dropped; correlations of every choice of a check, twice.
  return 4 * source_len * (n_queries + 2 * usual.choices) + 16 * (columns + target_len * target_len + work);
}

// E^T of residuals (H,n,b) float32: (H,T,b).
at::Tensor DevicePursuits::correlate(const State& state, const at::Tensor& residuals) const {
  n_readings_ += 1;
  if (state.heads.size() == static_cast<size_t>(table_.size(0))) return at::bmm(table_, residuals);
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < state.heads.size(); ++i) {
    parts.push_back(at::mm(table_[state.heads[i]], residuals[static_cast<int64_t>(i)]));
  }
  return at::stack(parts);
}

// Columns of E of the keys (H,k): (H,k,n) float32.
at::Tensor DevicePursuits::table_rows(const State& state, const at::Tensor& keys) const {
  const at::Tensor rows = (keys + state.first_row).flatten();
  return table_.flatten(0, 1).index_select(0, rows).view({keys.size(0), keys.size(1), table_.size(2)});
}

// The n_keys keys of highest correlation (H,T) that are not taken.
DevicePursuits::View DevicePursuits::view_of(const State& state, const at::Tensor& correlations, int64_t n_keys) const {
  const auto found = std::get<1>(at::topk(correlations.masked_fill(state.taken, kNowhere), n_keys, 1));
  View view;
  view.keys = std::get<0>(at::sort(found, 1));  // equal correlations are ordered by position
  if (kernels_ == nullptr) view.table = table_rows(state, view.keys);
  return view;
}

at::Tensor DevicePursuits::residual(const State& state) const {
  const int64_t rows = state.rows();
  if (rows == 0) return state.goal.unsqueeze(2);
  if (kernels_ != nullptr) return kernels_->residual(state, state.size).unsqueeze(2);
  return at::baddbmm(state.goal.unsqueeze(2), state.columns.narrow(1, 0, rows).transpose(1, 2),
                     state.weights.narrow(1, 0, rows).unsqueeze(2), 1, -1);
}

DevicePursuits::Iteration DevicePursuits::next_iteration(const State& state,
                                                         const std::vector<int64_t>& targets) const {
  Iteration next;
  std::vector<int64_t> both;
  for (size_t h = 0; h < state.heads.size(); ++h) {
    const PursuitSchedule now = pursuit_schedule(settings_, state.size[h]);
    const int64_t k = std::min({now.k_choice, targets[h] - state.size[h], table_.size(1) - state.n_taken[h]});
    next.k_of.push_back(k);
    next.solves.push_back(k > 0 && (!state.solved[h] || state.iteration[h] % now.nnls_interval == 0));
  }
  next.most = *std::max_element(next.k_of.begin(), next.k_of.end());
  const bool same_k = std::count(next.k_of.begin(), next.k_of.end(), next.most) == std::ssize(next.k_of);
  const auto n_solved = std::count(next.solves.begin(), next.solves.end(), true);
  const bool same_solves = n_solved == 0 || n_solved == std::ssize(next.solves);
  if (kernels_ != nullptr || next.most <= 0 || (same_k && same_solves)) return next;
  // One table for both: a copy takes longer than what is in it.
  both.insert(both.end(), next.k_of.begin(), next.k_of.end());
  both.insert(both.end(), next.solves.begin(), next.solves.end());
  const at::Tensor there = to_device(at::tensor(both, at::kLong), table_.device()).view({2, -1, 1});
  if (!same_k) next.k_there = there[0];
  if (!same_solves) next.solves_there = there[1] > 0;
  return next;
}

// The keys of highest correlation in the view that are not taken, highest first, equal ones in order of position: (H,k)
// int64, k the most that a head picks now.
at::Tensor DevicePursuits::best(State& state, const Iteration& now, const View& view, Choice* choice) const {
  const int64_t k = now.most;
  const at::Tensor rest = residual(state), rest32 = rest.to(at::kFloat);
  at::Tensor rough, taken = state.taken;
  if (view.keys.defined()) {
    rough = at::bmm(view.table, rest32).squeeze(2);
    taken = taken.gather(1, view.keys);
  } else {
    rough = correlate(state, rest32).squeeze(2);
  }
  rough.masked_fill_(taken, kNowhere);
  const int64_t n = std::min(std::max(kCandidates, k), rough.size(1));
  const auto [values, found] = at::topk(rough, n, 1);
  // Of each head the last one chosen, counted from its highest.
  const auto last_of = [&](const at::Tensor& sorted) {
    return now.k_there.defined() ? sorted.gather(1, (now.k_there - 1).clamp_min_(0)) : sorted.narrow(1, k - 1, 1);
  };
  const at::Tensor chose = now.picks_more_than(0);
  if (rough.size(1) > n) {
    const at::Tensor least = last_of(values).to(at::kDouble) - state.margin;
    const at::Tensor cut = rough.ge(least).sum(1).gt(n);
    state.n_cut.add_(chose.defined() ? at::logical_and(cut, chose.squeeze(1)) : cut);
  }
  const at::Tensor position = std::get<0>(at::sort(found, 1));
  const at::Tensor keys = view.keys.defined() ? view.keys.gather(1, position) : position;
  at::Tensor exact = at::bmm(table_rows(state, keys).to(at::kDouble), rest).squeeze(2);
  exact.masked_fill_(rough.gather(1, position).eq(kNowhere), kNowhere);
  const auto [heights, by_height] = at::sort(exact, /*stable=*/true, 1, /*descending=*/true);
  if (choice != nullptr) {
    choice->residual = rest32;
    choice->least = last_of(heights);
    choice->live = chose;
  }
  return keys.gather(1, by_height.narrow(1, 0, k));
}

// The i-th key of each head, key (H,1) int64; nothing where a head picks fewer.
void DevicePursuits::add(State& state, const at::Tensor& key, int64_t i, const Iteration& now) const {
  const int64_t rows = state.rows() + 1;
  const at::Tensor lives = now.picks_more_than(i);
  const bool all = !lives.defined();
  at::Tensor column = table_rows(state, key).squeeze(1).to(at::kDouble);
  if (!all) column = column * lives;
  state.taken.scatter_(
      1, key, all ? at::ones_like(key, state.taken.options()) : at::logical_or(state.taken.gather(1, key), lives));
  state.order.scatter_(1, state.position, key);
  const at::Tensor row = state.position.unsqueeze(2);
  state.columns.scatter_(1, row.expand({-1, 1, column.size(1)}), column.unsqueeze(1));
  const at::Tensor own = column.unsqueeze(2);
  push(state, at::bmm(state.columns.narrow(1, 0, rows), own).squeeze(2), at::bmm(own.transpose(1, 2), own).squeeze(2),
       at::bmm(state.goal.unsqueeze(1), own).squeeze(2));
  state.cuts.scatter_(1, state.position, state.n_cut.unsqueeze(1));
  for (size_t h = 0; h < now.k_of.size(); ++h) {
    state.size[h] += now.k_of[h] > i ? 1 : 0;
    state.n_taken[h] += now.k_of[h] > i ? 1 : 0;
  }
  state.position = all ? state.position + 1 : state.position + lives;
}

// Writes the row at each head's position of M and of M E^T y. gram (H, rows): products with the rows before it, zeros
// behind them (what it has with itself is not read); own (H,1): with itself; moment (H,1): with y. A head that has a
// column of zeros gets a row of zeros.
void DevicePursuits::push(State& state, const at::Tensor& gram, const at::Tensor& own, const at::Tensor& moment) const {
  const int64_t rows = gram.size(1);
  const at::Tensor inverse = state.inverse.narrow(1, 0, rows).narrow(2, 0, rows);
  const at::Tensor factor = at::bmm(inverse, gram.unsqueeze(2)).squeeze(2);
  const at::Tensor rest = own - factor.square().sum(1, /*keepdim=*/true);
  at::Tensor row = at::bmm(factor.unsqueeze(1), inverse).squeeze(1);
  at::Tensor forward = moment - (factor * state.forward.narrow(1, 0, rows)).sum(1, /*keepdim=*/true);
  const at::Tensor independent = rest > own * State::kDependent;
  const at::Tensor scale = at::where(independent, rest.abs().rsqrt(), at::zeros_like(rest));
  row.mul_(-scale).scatter_(1, state.position, scale);
  forward.mul_(scale);
  state.inverse.narrow(2, 0, rows).scatter_(1, state.position.unsqueeze(2).expand({-1, 1, rows}), row.unsqueeze(1));
  state.forward.scatter_(1, state.position, forward);
  state.free.narrow(1, 0, rows).addcmul_(row, forward);
  state.dependent.scatter_(1, state.position, independent.logical_not());
  state.weights.scatter_(1, state.position, settings_.lower);
}

// Clamped least squares over all picks, of the heads `whose` (H,1) bool (undefined: all); the others keep their
// weights.
void DevicePursuits::solve(State& state, const at::Tensor& whose) const {
  const int64_t rows = state.rows();
  if (rows == 0) return;
  at::Tensor w = state.free.narrow(1, 0, rows)
                     .clamp(settings_.lower, settings_.upper)
                     .masked_fill_(state.dependent.narrow(1, 0, rows), settings_.lower);
  const at::Tensor weights = state.weights.narrow(1, 0, rows);
  if (whose.defined()) w = at::where(whose, w, weights);
  weights.copy_(w);
}

// The same from M, not from sums that grew with it, for all heads; no weight behind their picks.
void DevicePursuits::solve_anew(State& state) const {
  const int64_t rows = state.rows();
  if (rows == 0) return;
  const at::Tensor inverse = state.inverse.narrow(1, 0, rows).narrow(2, 0, rows);
  const at::Tensor nothing = state.present(0, rows).logical_not_();
  const at::Tensor forward = state.forward.narrow(1, 0, rows).masked_fill(nothing, 0.0);
  state.free.narrow(1, 0, rows).copy_(at::bmm(forward.unsqueeze(1), inverse).squeeze(1));
  solve(state, {});
  state.weights.narrow(1, 0, rows).masked_fill_(nothing, 0.0);
}

// What best(), add() and solve() do, but for `position`, which nobody needs before the next place().
void DevicePursuits::advance_by_kernels(State& state, const Iteration& now, const View& view, Choice* choice) const {
  if (!view.keys.defined()) n_readings_ += 1;
  const PursuitStep made =
      kernels_->advance(state, {state.size, now.k_of, now.solves, view.keys, settings_.lower, settings_.upper});
  state.weights = made.weights;
  state.free = made.free;
  state.n_cut = made.n_cut;
  if (choice != nullptr) {
    choice->residual = made.residual.unsqueeze(2);
    choice->least = made.least;
  }
  for (size_t h = 0; h < now.k_of.size(); ++h) {
    state.size[h] += now.k_of[h];
    state.n_taken[h] += now.k_of[h];
  }
}

// One iteration towards `targets` picks; false when no head picks a key.
bool DevicePursuits::advance(State& state, const std::vector<int64_t>& targets, const View& view,
                             Choice* choice) const {
  const Iteration now = next_iteration(state, targets);
  if (now.most <= 0) return false;
  if (kernels_ != nullptr) {
    advance_by_kernels(state, now, view, choice);
  } else {
    const at::Tensor keys = best(state, now, view, choice);
    for (int64_t i = 0; i < now.most; ++i) add(state, keys.narrow(1, i, 1), i, now);
    if (now.any_solves()) solve(state, now.solves_there);
  }
  for (size_t h = 0; h < now.k_of.size(); ++h) {
    if (now.solves[h]) state.solved[h] = true;
    if (now.k_of[h] > 0) ++state.iteration[h];
  }
  return true;
}

// How many of a head's choices no key outside the view could have won, `correlations` (H,T, at least so many) being
// those of their residuals. The first is right, for the view is made of its own correlations.
std::vector<int64_t> DevicePursuits::check(const State& state, const View& view, const at::Tensor& taken,
                                           const std::vector<Choice>& choices, const at::Tensor& correlations) const {
  const auto n = static_cast<int64_t>(choices.size());
  const at::Tensor inside = taken.scatter(1, view.keys, true).unsqueeze(2);
  const at::Tensor outside = correlations.narrow(2, 0, n).masked_fill(inside, kNowhere).amax(1);  // (H,choices)
  const at::Tensor everyone = at::ones({taken.size(0), 1}, taken.options());
  std::vector<at::Tensor> least, live;
  for (const Choice& choice : choices) {
    least.push_back(choice.least);
    live.push_back(choice.live.defined() ? choice.live : everyone);
  }
  const at::Tensor won = at::logical_and(outside >= at::cat(least, 1) - state.margin, at::cat(live, 1));
  const at::Tensor lost = won.cpu().contiguous();
  const bool* flags = lost.const_data_ptr<bool>();
  std::vector<int64_t> right(state.heads.size(), n);
  for (size_t h = 0; h < right.size(); ++h) {
    const bool* own = flags + static_cast<int64_t>(h) * n;
    for (int64_t i = n - 1; i > 0; --i) right[h] = own[i] ? i : right[h];
  }
  return right;
}

// Takes back what each head chose after its first right[h] choices (the same on the device: right_there (H) int64);
// `first` rows were there of every head.
void DevicePursuits::take_back(State& state, const std::vector<Choice>& choices, const std::vector<int64_t>& right,
                               const at::Tensor& right_there, const at::Tensor& taken, int64_t first) const {
  const int64_t end = state.rows();
  for (size_t i = 1; i < choices.size(); ++i) {
    const auto n_right = static_cast<int64_t>(i);
    if (std::find(right.begin(), right.end(), n_right) == right.end()) continue;
    for (size_t h = 0; h < right.size(); ++h) {
      if (right[h] == n_right) state.back_to(choices[i].before, h);
    }
    state.restore(choices[i].before, right_there.eq(n_right));
  }
  state.settle(taken, first, end);
}

void DevicePursuits::drive(State& state, const std::vector<int64_t>& targets) const {
  drive_on(state, targets);
  if (kernels_ != nullptr) state.place();
}

void DevicePursuits::drive_on(State& state, const std::vector<int64_t>& targets) const {
  const int64_t source_len = table_.size(1);
  int64_t n_keys = at_hand_.keys, n_choices = std::min(kFirstChoices, at_hand_.choices);
  at::Tensor correlations;  // (H,T) of the residual
  for (;;) {
    if (n_keys > source_len / 4) {  // no fewer than all would do, for the time being
      for (int64_t i = 0; i < at_hand_.choices || at_hand_.keys > source_len / 4; ++i) {
        if (!advance(state, targets, {}, nullptr)) return;
      }
      n_keys = at_hand_.keys;
      n_choices = std::min(kFirstChoices, at_hand_.choices);
      correlations = at::Tensor();
    }
    if (!correlations.defined()) correlations = correlate(state, residual(state).to(at::kFloat)).squeeze(2);
    const View view = view_of(state, correlations, n_keys);
    const at::Tensor taken = state.taken.clone();
    const int64_t first = *std::min_element(state.size.begin(), state.size.end());
    std::vector<Choice> choices;
    std::vector<at::Tensor> residuals;
    bool more = true;
    while (static_cast<int64_t>(choices.size()) < n_choices) {
      Choice choice;
      choice.before = state.mark();
      more = advance(state, targets, view, &choice);
      if (!more) break;
      residuals.push_back(choice.residual);
      choices.push_back(std::move(choice));
    }
    if (choices.empty()) return;
    residuals.push_back(residual(state).to(at::kFloat));
    const at::Tensor all = correlate(state, at::cat(residuals, 2));
    const std::vector<int64_t> right = check(state, view, taken, choices, all);
    const auto made = static_cast<int64_t>(choices.size()), n_heads = static_cast<int64_t>(right.size());
    // Of every choice, and of the copy that is made of the keys at hand without kernels.
    const int64_t n_parts = made + (kernels_ == nullptr ? 2 : 0);
    const double parts = static_cast<double>(n_keys * n_parts) / static_cast<double>(source_len);
    const double reading = 1 + parts;  // of the table, since the last check
    n_readings_ += parts;
    const int64_t n_right = std::accumulate(right.begin(), right.end(), int64_t{0});
    n_taken_back_ += made * n_heads - n_right;
    if (n_right == made * n_heads) {
      if (!more) return;
      correlations = all.select(2, made);
    } else {
      const at::Tensor right_there = to_device(at::tensor(right, at::kLong), all.device());
      take_back(state, choices, right, right_there, taken, first);
      correlations = all.gather(2, right_there.view({-1, 1, 1}).expand({-1, source_len, 1})).squeeze(2);
    }
    // By the slowest head: the others wait for it in the end.
    int64_t least = made;
    for (size_t h = 0; h < right.size(); ++h) least = state.size[h] < targets[h] ? std::min(least, right[h]) : least;
    if (static_cast<double>(least) < reading) {
      n_keys = source_len;  // all of them cost less
      continue;
    }
    n_choices = std::clamp(2 * least, std::min(kFewestChoices, at_hand_.choices), at_hand_.choices);
    n_keys = least < kFewestChoices ? 2 * n_keys : std::max(n_keys / 2, at_hand_.keys);
  }
}

void DevicePursuits::run(const std::vector<int64_t>& most) {
  const int64_t largest = *std::max_element(most.begin(), most.end());
  if (*std::min_element(most.begin(), most.end()) < 0 || largest > table_.size(1)) {
    throw Error(ErrorKind::kInternal, "more picks are asked for than there are keys", "matching pursuit", "");
  }
  std::vector<int64_t> heads(most.size());
  std::iota(heads.begin(), heads.end(), 0);
  path_ = std::make_unique<State>(begin(heads, largest));
  drive(*path_, most);
  // After how many iterations each pick was there: the schedule says it.
  iterations_.clear();
  for (int64_t iteration = 1; static_cast<int64_t>(iterations_.size()) < path_->rows(); ++iteration) {
    const auto picks = static_cast<int64_t>(iterations_.size());
    const int64_t k = std::min(pursuit_schedule(settings_, picks).k_choice, path_->rows() - picks);
    iterations_.resize(static_cast<size_t>(picks + k), iteration);
  }
}

std::unique_ptr<Pursuit> make_pursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                      const at::Tensor& row_max, const at::Tensor& row_sum,
                                      const PursuitSettings& settings, const PursuitKernels* kernels) {
  if (keys.is_cpu()) return std::make_unique<MatchingPursuit>(queries, keys, bias, row_max, row_sum, settings);
  return std::make_unique<DevicePursuit>(queries, keys, bias, row_max, row_sum, settings, kernels);
}

DevicePursuit::DevicePursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                             const at::Tensor& row_max, const at::Tensor& row_sum, const PursuitSettings& settings,
                             const PursuitKernels* kernels)
    : pursuits_(queries.unsqueeze(0), keys.unsqueeze(0), bias.defined() ? bias.unsqueeze(0) : bias,
                row_max.unsqueeze(0), row_sum.unsqueeze(0), settings, {}, kernels) {}

}  // namespace kvc
