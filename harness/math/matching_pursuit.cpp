#include "harness/math/matching_pursuit.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "harness/core/error.h"
#include "harness/math/double_products.h"
#include "harness/math/exponential_table.h"
#include "harness/math/matching_pursuit_state.h"

namespace kvc {

using namespace products;

namespace {

constexpr int64_t kMostCandidates = 64;
// Rows of G made at a time: that of the key picked and those of the likeliest to follow.
constexpr int64_t kRowsAtATime = 24;
constexpr int64_t kLookAhead = 64;  // among so many of the best, some have their rows already
// All of G costs less, symmetric as it is, than the rows of more than this part of the keys.
constexpr int64_t kPartOfKeys = 6;
// Of the largest h: what float32 products and sums of G leave uncertain in a correlation.
constexpr double kGramRounding = 4e-6;
constexpr int kMostRefinements = 3;

int64_t rounded_up(int64_t x, int64_t unit) {
  return (x + unit - 1) / unit * unit;
}

}  // namespace

PursuitSchedule pursuit_schedule(const PursuitSettings& settings, int64_t picked) {
  if (!settings.progressive) return {settings.k_choice, settings.nnls_interval};
  if (picked < 300) return {1, 1};
  if (picked < 1500) return {2, 2};
  return {4, 2};
}

// y - E[:,sel] w
std::vector<double> MatchingPursuit::residual(const State& state) const {
  std::vector<double> rest = target_;
  std::vector<const float*> columns;
  for (const Column& column : state.columns) columns.push_back(column->data());
  subtract_all(rest, state.weights, columns);
  return rest;
}

// The k keys of highest correlation with the residual that are not taken, highest first, equal ones in order of
// position. `to_go` are still to be picked: more rows of G are not made.
std::vector<int64_t> MatchingPursuit::best(State& state, int64_t k, int64_t to_go) const {
  rows_->need(state.order, state.likely, std::min(kRowsAtATime, rounded_up(to_go, ExponentialTable::kRowsTogether)));
  std::vector<double> correlation = moment_;
  std::vector<const float*> rows;
  for (const int64_t key : state.order) rows.push_back(rows_->row[static_cast<size_t>(key)]);
  subtract_all(correlation, state.weights, rows);
  std::vector<int64_t> keys;
  for (int64_t j = 0; j < source_len_; ++j) {
    if (!state.taken[static_cast<size_t>(j)]) keys.push_back(j);
  }
  k = std::min(k, static_cast<int64_t>(keys.size()));
  if (k == 0) return {};
  const auto higher = [&](int64_t a, int64_t b) {
    const double left = correlation[static_cast<size_t>(a)], right = correlation[static_cast<size_t>(b)];
    return left != right ? left > right : a < b;
  };
  std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.end(), higher);
  const std::vector<int64_t> all_keys = rows_->on_demand() ? keys : std::vector<int64_t>();
  const double uncertain =
      correlation[static_cast<size_t>(keys[static_cast<size_t>(k - 1)])] - 2 * kGramRounding * largest_moment_;
  const auto last = std::partition(keys.begin() + k, keys.end(),
                                   [&](int64_t j) { return correlation[static_cast<size_t>(j)] >= uncertain; });
  keys.erase(last, keys.end());
  std::sort(keys.begin(), keys.end(), higher);
  const auto most = static_cast<size_t>(std::max(kMostCandidates, k));
  if (keys.size() > most) {
    ++state.n_cut;
    keys.resize(most);
  }
  if (static_cast<int64_t>(keys.size()) > k || k > 1) {
    const std::vector<double> rest = residual(state);
    for (const int64_t j : keys) correlation[static_cast<size_t>(j)] = dot(rest.data(), column(j).data(), n_);
    std::sort(keys.begin(), keys.end(), higher);
  }
  keys.resize(static_cast<size_t>(k));
  state.likely.clear();
  if (!all_keys.empty() && rows_->missing(keys)) {
    state.likely = all_keys;
    const auto end = state.likely.begin() + std::min(kLookAhead, static_cast<int64_t>(all_keys.size()));
    std::partial_sort(state.likely.begin(), end, state.likely.end(), higher);
    state.likely.erase(end, state.likely.end());
  }
  return keys;
}

// One iteration towards `target` picks; false when no key is left.
bool MatchingPursuit::advance(State& state, int64_t target) const {
  const PursuitSchedule now = pursuit_schedule(settings_, state.size());
  const std::vector<int64_t> keys = best(state, std::min(now.k_choice, target - state.size()), target - state.size());
  if (keys.empty()) return false;
  for (const int64_t key : keys) add(state, key);
  // Between solves the new keys carry the lower bound.
  if (!state.solved || state.iteration % now.nnls_interval == 0) solve(state);
  ++state.iteration;
  return true;
}

void MatchingPursuit::run(int64_t most) {
  if (most < 0 || most > source_len_) {
    throw Error(ErrorKind::kInternal, "more picks are asked for than there are keys", "matching pursuit", "");
  }
  if (rows_->blocks.empty() && (!rows_->on_demand() || most * kPartOfKeys > source_len_)) form_gram();
  auto state = std::make_shared<State>();
  state->taken.assign(static_cast<size_t>(source_len_), false);
  iterations_.clear();
  cuts_.clear();
  while (state->size() < most && advance(*state, most)) {
    iterations_.resize(state->order.size(), state->iteration);
    cuts_.resize(state->order.size(), state->n_cut);
  }
  path_ = std::move(state);
}

PursuitPicks MatchingPursuit::picks(int64_t target) const {
  const auto shared = std::min(static_cast<size_t>(target), path_->order.size());
  State state = path_->prefix(shared);
  state.iteration = shared > 0 ? iterations_[shared - 1] : 0;
  state.n_cut = shared > 0 ? cuts_[shared - 1] : 0;
  solve(state);
  PursuitPicks result;
  for (int refinement = 0; settings_.drop_below && refinement < kMostRefinements; ++refinement) {
    std::vector<size_t> kept;
    for (size_t i = 0; i < state.order.size(); ++i) {
      if (!(std::log(state.weights[i]) < *settings_.drop_below)) kept.push_back(i);
    }
    if (kept.size() == state.order.size()) break;
    result.n_dropped += state.size() - static_cast<int64_t>(kept.size());
    State next;
    next.taken = state.taken;  // the dropped stay excluded
    next.iteration = state.iteration + 1;
    next.n_cut = state.n_cut;
    for (size_t i = 0; i < kept.size(); ++i) {
      std::vector<double> gram;
      for (size_t j = 0; j <= i; ++j) gram.push_back(state.gram[kept[i]][kept[j]]);
      add(next, state.order[kept[i]], state.columns[kept[i]], state.moment[kept[i]], std::move(gram));
    }
    solve(next);
    next.solved = false;  // the first iteration after a drop solves whatever the interval
    state = std::move(next);
    while (state.size() < target && advance(state, target)) {
    }
    solve(state);
  }
  if (!explains(state)) fit_box(state);
  result.order = state.order;
  result.weights = state.weights;
  result.n_cut = state.n_cut;
  for (const bool dependent : state.dependent) result.n_dependent += dependent ? 1 : 0;
  return result;
}

}  // namespace kvc
