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
constexpr int64_t kLeastPart = 16;  // of the keys: at hand are no more
constexpr double kNowhere = -std::numeric_limits<double>::infinity();

}  // namespace

DevicePursuits::DevicePursuits(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                               const at::Tensor& row_max, const at::Tensor& row_sum, const PursuitSettings& settings,
                               const KeysAtHand& at_hand, const PursuitKernels* kernels)
    : settings_(settings),
      at_hand_{std::max(std::min(at_hand.keys, keys.size(1) / kLeastPart), kCandidates + 1),
               std::max<int64_t>(at_hand.choices, 1)},
      kernels_(kernels != nullptr && settings.k_choice <= kernels->most_picks ? kernels : nullptr),
      has_view_(at_hand_.keys <= keys.size(1) / 4),
      target_(row_sum.to(at::kDouble).squeeze(2)) {
  // Rows of keys: logits of "queries" that are the keys.
  table_ = at::empty({keys.size(0), keys.size(1), queries.size(1)}, keys.options().dtype(at::kFloat));
  logits_into(table_, keys, queries.to(keys.scalar_type()), {});
  if (bias.defined()) table_.add_(bias.to(at::kFloat).unsqueeze(2));
  table_.sub_(row_max.transpose(1, 2)).exp_();
  const at::Tensor moments = at::bmm(table_, row_sum.to(at::kFloat));
  margin_ = moments.amax({1, 2}).to(at::kDouble) * (2 * kRounding);
  if (kernels_ != nullptr && has_view_) make_coarse();
}

void DevicePursuits::make_coarse() {
  constexpr double kSteps = 255;
  const int64_t n_heads = table_.size(0), source_len = table_.size(1), n = table_.size(2);
  coarse_ = at::zeros({n_heads, source_len, pursuit_padded(n)}, table_.options().dtype(at::kByte));
  coarse_step_ = table_.amax(2).clamp_min_(1e-30).div_(kSteps);
  const int64_t block = (source_len + 15) / 16;  // what is made on the way takes a sixteenth of the table
  for (int64_t first = 0; first < source_len; first += block) {
    const int64_t keys = std::min(block, source_len - first);
    const at::Tensor step = coarse_step_.narrow(1, first, keys).unsqueeze(2);
    coarse_.narrow(1, first, keys).narrow(2, 0, n).copy_((table_.narrow(1, first, keys) / step).round_());
  }
}

DevicePursuits::~DevicePursuits() = default;

int64_t DevicePursuits::bytes(int64_t n_queries, int64_t source_len, int64_t target_len, bool with_kernels) {
  const KeysAtHand usual;
  const int64_t columns = with_kernels ? 0 : target_len * n_queries + n_queries * usual.keys / 2;
  const int64_t work = with_kernels ? pursuit_work(n_queries, source_len, target_len) : 0;
  const int64_t coarse = with_kernels ? source_len * (pursuit_padded(n_queries) + 4) : 0;
  // A second set of picks where keys are dropped; correlations of every choice of a check, twice.
  return 4 * source_len * (n_queries + 2 * usual.choices) + coarse + 16 * (columns + target_len * target_len + work);
}

// E^T of residuals (H,n,b) float32: (H,T,b), zeros of heads that are not in `whose`.
at::Tensor DevicePursuits::correlate(const State& state, const at::Tensor& residuals,
                                     const std::vector<bool>& whose) const {
  const std::vector<int64_t>& heads = state.heads;
  at::Tensor all = at::zeros({residuals.size(0), table_.size(1), residuals.size(2)}, residuals.options());
  for (size_t begin = 0, end = 0; begin < heads.size(); begin = end) {
    end = begin + 1;
    if (!whose[begin]) continue;
    // Neighbours in the table too: one product.
    while (end < heads.size() && whose[end] && heads[end] == heads[end - 1] + 1) ++end;
    const auto first = static_cast<int64_t>(begin), n = static_cast<int64_t>(end - begin);
    at::Tensor own = all.narrow(0, first, n);
    at::bmm_out(own, table_.narrow(0, heads[begin], n), residuals.narrow(0, first, n));
    n_readings_ += static_cast<double>(n);
  }
  return all;
}

// Columns of E of the keys (H,k): (H,k,n) float32.
at::Tensor DevicePursuits::table_rows(const State& state, const at::Tensor& keys) const {
  const at::Tensor rows = (keys + state.first_row).flatten();
  return table_.flatten(0, 1).index_select(0, rows).view({keys.size(0), keys.size(1), table_.size(2)});
}

// The keys of highest correlation (H,T) that are not taken.
DevicePursuits::View DevicePursuits::view_of(const State& state, const at::Tensor& correlations,
                                             const std::vector<bool>& scans) const {
  const auto found = std::get<1>(at::topk(correlations.masked_fill(state.taken, kNowhere), at_hand_.keys, 1));
  View view;
  view.keys = std::get<0>(at::sort(found, 1));  // equal correlations are ordered by position
  if (std::find(scans.begin(), scans.end(), true) != scans.end()) view.scans = scans;
  if (kernels_ != nullptr) return view;
  view.table = table_rows(state, view.keys);
  n_readings_ += 2 * view_part() * static_cast<double>(state.heads.size());
  if (view.scans.empty()) return view;
  const std::vector<int64_t> flags(scans.begin(), scans.end());
  view.scans_there = to_device(at::tensor(flags, at::kLong), table_.device()) > 0;
  view.barred = at::ones_like(state.taken).scatter_(1, view.keys, false);
  view.barred.logical_and_(view.scans_there.logical_not().unsqueeze(1));
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
  const bool at_hand = view.keys.defined() && view.scans.empty();
  if (at_hand) {
    rough = at::bmm(view.table, rest32).squeeze(2);
    taken = taken.gather(1, view.keys);
  } else {
    rough = correlate(state, rest32, now.who_picks()).squeeze(2);
    if (view.barred.defined()) taken = at::logical_or(taken, view.barred);
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
    at::Tensor cut = rough.ge(least).sum(1).gt(n);
    if (view.scans_there.defined()) cut.logical_and_(view.scans_there.logical_not());
    state.n_cut.add_(chose.defined() ? at::logical_and(cut, chose.squeeze(1)) : cut);
  }
  const at::Tensor position = std::get<0>(at::sort(found, 1));
  const at::Tensor keys = at_hand ? view.keys.gather(1, position) : position;
  at::Tensor exact = at::bmm(table_rows(state, keys).to(at::kDouble), rest).squeeze(2);
  exact.masked_fill_(rough.gather(1, position).eq(kNowhere), kNowhere);
  const auto [heights, by_height] = at::sort(exact, /*stable=*/true, 1, /*descending=*/true);
  if (choice != nullptr) {
    choice->residual = rest32;
    choice->candidates = keys;
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
  const PursuitStep made = kernels_->advance(
      state, {state.size, now.k_of, now.solves, view.keys, view.scans, settings_.lower, settings_.upper});
  state.weights = made.weights;
  state.free = made.free;
  state.n_cut = made.n_cut;
  if (choice != nullptr) {
    choice->residual = made.residual.unsqueeze(2);
    choice->candidates = made.candidates;
    choice->least = made.least;
  }
  for (size_t h = 0; h < now.k_of.size(); ++h) {
    state.size[h] += now.k_of[h];
    state.n_taken[h] += now.k_of[h];
  }
}

double DevicePursuits::scan_part() const {
  if (kernels_ == nullptr) return 1;
  return static_cast<double>(coarse_.size(2)) / static_cast<double>(4 * table_.size(2));
}

// Of an iteration, but for what correlate() counts.
void DevicePursuits::count_readings(const Iteration& now, const View& view) const {
  if (kernels_ == nullptr && (!view.keys.defined() || !view.scans.empty())) return;
  for (size_t h = 0; h < now.k_of.size(); ++h) {
    if (now.k_of[h] <= 0) continue;
    const bool scans = !view.scans.empty() && view.scans[h];
    n_readings_ += !view.keys.defined() ? 1 : scans ? scan_part() : view_part();
  }
}

// One iteration towards `targets` picks; false when no head picks a key.
bool DevicePursuits::advance(State& state, const std::vector<int64_t>& targets, const View& view,
                             Choice* choice) const {
  const Iteration now = next_iteration(state, targets);
  if (now.most <= 0) return false;
  count_readings(now, view);
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

// Of correlations (H,T,choices) hides the keys that each choice compared in float64 and those that the choices before
// it took.
void DevicePursuits::mask_compared(const State& state, const std::vector<Choice>& choices,
                                   at::Tensor& correlations) const {
  std::vector<at::Tensor> candidates;
  for (const Choice& choice : choices) candidates.push_back(choice.candidates);
  const at::Tensor compared = at::stack(candidates, 2);  // (H,C,choices)
  correlations.scatter_(1, compared, kNowhere);

  // Picks before each choice, counted from the first one's.
  std::vector<int64_t> first = choices.front().before.size, before;
  int64_t most = 0;
  for (size_t h = 0; h < first.size(); ++h) most = std::max(most, state.size[h] - first[h]);
  before = first;
  for (const Choice& choice : choices) {
    for (size_t h = 0; h < first.size(); ++h) before.push_back(choice.before.size[h] - first[h]);
  }
  const auto n = static_cast<int64_t>(choices.size());
  const at::Tensor there = to_device(at::tensor(before, at::kLong), table_.device()).view({n + 1, -1});
  const at::Tensor which = at::arange(most, there.options()).unsqueeze(0);  // (1,most)
  const at::Tensor row = (there[0].unsqueeze(1) + which).clamp_max_(state.order.size(1) - 1);
  const at::Tensor picked = state.order.gather(1, row).unsqueeze(2);  // (H,most,1)
  const at::Tensor was_there = which.unsqueeze(2) < there.narrow(0, 1, n).t().unsqueeze(1);
  correlations.scatter_(1, at::where(was_there, picked, compared.narrow(1, 0, 1)), kNowhere);
}

// Of each head how many choices are right, by the way it made them and had it made them among the keys at hand: no
// other key could have won them. The first always is, for the view is made of its own correlations.
struct DevicePursuits::Verdict {
  std::vector<int64_t> right, right_at_hand;
};

// `correlations` (H,T, at least as many as choices) are those of the choices' residuals.
DevicePursuits::Verdict DevicePursuits::check(const State& state, const View& view, const at::Tensor& taken,
                                              const std::vector<Choice>& choices,
                                              const at::Tensor& correlations) const {
  const auto n = static_cast<int64_t>(choices.size());
  const at::Tensor inside = taken.scatter(1, view.keys, true).unsqueeze(2);
  std::vector<at::Tensor> others = {correlations.narrow(2, 0, n).masked_fill(inside, kNowhere).amax(1)};
  if (!view.scans.empty()) {
    at::Tensor rest = correlations.narrow(2, 0, n).masked_fill(taken.unsqueeze(2), kNowhere);
    mask_compared(state, choices, rest);
    others.push_back(rest.amax(1));
  }
  const at::Tensor everyone = at::ones({taken.size(0), 1}, taken.options());
  std::vector<at::Tensor> least, live;
  for (const Choice& choice : choices) {
    least.push_back(choice.least);
    live.push_back(choice.live.defined() ? choice.live : everyone);
  }
  const at::Tensor won = at::logical_and(at::stack(others) >= at::cat(least, 1) - state.margin, at::cat(live, 1));
  const at::Tensor lost = won.cpu().contiguous();  // (1 or 2,H,choices)
  const bool* flags = lost.const_data_ptr<bool>();
  const size_t n_heads = state.heads.size();
  const auto first_lost = [&](size_t row) {
    for (int64_t i = 1; i < n; ++i) {
      if (flags[static_cast<int64_t>(row) * n + i]) return i;
    }
    return n;
  };
  Verdict verdict;
  for (size_t h = 0; h < n_heads; ++h) {
    verdict.right_at_hand.push_back(first_lost(h));
    const bool scanned = !view.scans.empty() && view.scans[h];
    verdict.right.push_back(scanned ? first_lost(n_heads + h) : verdict.right_at_hand[h]);
  }
  return verdict;
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
  if (!has_view_) {
    while (advance(state, targets, {}, nullptr)) {
    }
    return;
  }
  const auto n_choices = static_cast<size_t>(at_hand_.choices);
  std::vector<bool> scans(state.heads.size(), true);
  at::Tensor correlations =
      correlate(state, residual(state).to(at::kFloat), next_iteration(state, targets).who_picks()).squeeze(2);  // (H,T)
  for (;;) {
    View all = view_of(state, correlations, scans), first_view = all;
    first_view.scans.clear();
    first_view.barred = first_view.scans_there = at::Tensor();
    const at::Tensor taken = state.taken.clone();
    const int64_t first = *std::min_element(state.size.begin(), state.size.end());
    std::vector<Choice> choices;
    std::vector<at::Tensor> residuals;
    bool more = true;
    while (choices.size() < n_choices) {
      Choice choice;
      choice.before = state.mark();
      more = advance(state, targets, choices.empty() ? first_view : all, &choice);
      if (!more) break;
      residuals.push_back(choice.residual);
      choices.push_back(std::move(choice));
    }
    if (choices.empty()) return;
    std::vector<bool> live(state.heads.size());
    for (size_t h = 0; h < live.size(); ++h) live[h] = state.size[h] > choices.front().before.size[h];
    residuals.push_back(residual(state).to(at::kFloat));
    const at::Tensor checked = correlate(state, at::cat(residuals, 2), live);
    const Verdict verdict = check(state, all, taken, choices, checked);
    const auto made = static_cast<int64_t>(choices.size()), n_heads = static_cast<int64_t>(live.size());
    const int64_t n_right = std::accumulate(verdict.right.begin(), verdict.right.end(), int64_t{0});
    n_taken_back_ += made * n_heads - n_right;
    if (n_right == made * n_heads) {
      if (!more) return;
      correlations = checked.select(2, made);
    } else {
      const at::Tensor right_there = to_device(at::tensor(verdict.right, at::kLong), checked.device());
      take_back(state, choices, verdict.right, right_there, taken, first);
      correlations = checked.gather(2, right_there.view({-1, 1, 1}).expand({-1, table_.size(1), 1})).squeeze(2);
    }
    // What a run like the last would read of the table for each choice that is right.
    for (size_t h = 0; h < live.size(); ++h) {
      const auto n = static_cast<double>(made);
      const double at_hand = (1 + n * view_part()) / static_cast<double>(verdict.right_at_hand[h]);
      const double by_scans = (1 + n * scan_part()) / static_cast<double>(scans[h] ? verdict.right[h] : made);
      scans[h] = by_scans < at_hand;
    }
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
