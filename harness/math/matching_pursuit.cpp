#include "harness/math/matching_pursuit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>
#include <utility>

#include "harness/core/error.h"
#include "harness/math/attention.h"

namespace kvc {
namespace {

constexpr int64_t kBlockQueries = 512;
constexpr int64_t kPanels = 8;
constexpr int64_t kMostCandidates = 64;
// Rows of G made at a time: that of the key picked and those of the likeliest to follow.
constexpr int64_t kRowsAtATime = 32;
constexpr int64_t kLookAhead = 64;  // among so many of the best, some have their rows already
// All of G costs less, symmetric as it is, than the rows of more than this part of the keys.
constexpr int64_t kPartOfKeys = 6;
constexpr int64_t kMostTableBytes = int64_t{1} << 29;
// Of the largest h: what float32 products and sums of G leave uncertain in a correlation.
constexpr double kGramRounding = 4e-6;
// Of a column's squared norm: what others leave of it when they span it.
constexpr double kDependent = 1e-10;
constexpr int kMostRefinements = 3;

struct Schedule {
  int64_t k_choice, nnls_interval;
};

Schedule schedule(const PursuitSettings& settings, int64_t picked) {
  if (!settings.progressive) return {settings.k_choice, settings.nnls_interval};
  if (picked < 300) return {1, 1};
  if (picked < 1500) return {2, 2};
  return {4, 2};
}

double dot(const double* a, const double* b, int64_t n) {
  double sums[4] = {0, 0, 0, 0};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (int64_t k = 0; k < 4; ++k) sums[k] += a[i + k] * b[i + k];
  }
  for (; i < n; ++i) sums[0] += a[i] * b[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

std::vector<double> to_vector(const at::Tensor& values) {
  const at::Tensor flat = values.to(at::kDouble).contiguous().view(-1);
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

}  // namespace

// Rows of G: all at once, or those asked for, from the table E.
struct MatchingPursuit::Rows {
  at::Tensor table;                // E (n,T) float32, or undefined
  std::vector<at::Tensor> blocks;  // on the CPU, some rows each
  std::vector<const float*> row;   // of each key, or nullptr
  std::mutex mutex;

  void take(const at::Tensor& block, const std::vector<int64_t>& keys) {
    blocks.push_back(block.cpu().contiguous());
    const float* data = blocks.back().const_data_ptr<float>();
    const auto width = static_cast<int64_t>(row.size());
    for (size_t i = 0; i < keys.size(); ++i) row[static_cast<size_t>(keys[i])] = data + static_cast<int64_t>(i) * width;
  }
  // Safe to call from several threads; what it has made is read without the lock afterwards.
  void need(const std::vector<int64_t>& keys, const std::vector<int64_t>& likely) {
    const std::lock_guard lock(mutex);
    std::vector<int64_t> missing;
    for (const int64_t key : keys) {
      if (row[static_cast<size_t>(key)] == nullptr) missing.push_back(key);
    }
    if (missing.empty()) return;
    for (const int64_t key : likely) {
      if (static_cast<int64_t>(missing.size()) >= kRowsAtATime) break;
      const bool listed = std::find(missing.begin(), missing.end(), key) != missing.end();
      if (row[static_cast<size_t>(key)] == nullptr && !listed) missing.push_back(key);
    }
    const at::Tensor columns = table.index_select(1, at::tensor(missing, at::kLong).to(table.device()));
    take(at::mm(columns.t(), table), missing);
  }
};

// A pursuit under way: picks, their columns, and the Cholesky factor of their Gram matrix.
struct MatchingPursuit::State {
  std::vector<int64_t> order;
  std::vector<Column> columns;              // of each pick (n)
  std::vector<double> moment;               // column . y of each pick
  std::vector<std::vector<double>> gram;    // row i: with the picks 0..i
  std::vector<std::vector<double>> factor;  // row i of the lower factor; empty where the pick is dependent
  std::vector<bool> dependent;
  std::vector<double> weights;
  std::vector<bool> taken;  // picked or excluded (T)
  int64_t iteration = 0;
  int64_t n_cut = 0;    // choices among more than kMostCandidates
  bool solved = false;  // weights are those of a solve, with lower bounds for keys picked since

  int64_t size() const { return static_cast<int64_t>(order.size()); }
  // The first `picks` of it, as they were when they were picked; weights are not those of a solve.
  State prefix(size_t picks) const {
    State part = *this;
    part.order.resize(picks);
    part.columns.resize(picks);
    part.moment.resize(picks);
    part.gram.resize(picks);
    part.factor.resize(picks);
    part.dependent.resize(picks);
    part.weights.resize(picks);
    for (size_t i = picks; i < order.size(); ++i) part.taken[static_cast<size_t>(order[i])] = false;
    return part;
  }
};

MatchingPursuit::MatchingPursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                 const at::Tensor& row_max, const at::Tensor& row_sum, const PursuitSettings& settings)
    : settings_(settings),
      n_(queries.size(0)),
      source_len_(keys.size(0)),
      target_(to_vector(row_sum.cpu())),
      rows_(std::make_shared<Rows>()) {
  const at::TensorOptions options = queries.options().dtype(at::kFloat);
  queries_ = queries.to(at::kFloat);
  keys_ = keys.to(at::kFloat);
  if (bias.defined()) bias_ = bias.to(at::kFloat);
  row_max_ = row_max;
  rows_->row.assign(static_cast<size_t>(source_len_), nullptr);
  if (4 * n_ * source_len_ <= kMostTableBytes) rows_->table = at::empty({n_, source_len_}, options);
  at::Tensor moment = at::zeros({source_len_}, options.dtype(at::kDouble));
  for_each_block([&](const at::Tensor& block, int64_t first) {
    if (rows_->table.defined()) rows_->table.narrow(0, first, block.size(0)).copy_(block);
    moment.add_(at::mv(block.t(), row_sum.narrow(0, first, block.size(0)).squeeze(1)).to(at::kDouble));
  });
  moment_ = to_vector(moment.cpu());
  for (const double h : moment_) largest_moment_ = std::max(largest_moment_, h);
  host_ = {queries_.cpu().mul(1.0 / std::sqrt(static_cast<double>(keys.size(1)))).contiguous(),
           keys_.cpu().contiguous(), bias_.defined() ? bias_.cpu() : bias_, row_max_.cpu().squeeze(1)};
}

// Calls work(rows of E (., T), index of the first).
void MatchingPursuit::for_each_block(const std::function<void(const at::Tensor&, int64_t)>& work) const {
  for (int64_t first = 0; first < n_; first += kBlockQueries) {
    const int64_t n_here = std::min(kBlockQueries, n_ - first);
    at::Tensor block = attention_logits(queries_.narrow(0, first, n_here), keys_, bias_);
    work(block.sub_(row_max_.narrow(0, first, n_here)).exp_(), first);
  }
}

// All of G, and no more need of the table.
void MatchingPursuit::form_gram() {
  const int64_t t = source_len_;
  at::Tensor gram = at::zeros({t, t}, queries_.options());
  const int64_t width = std::max<int64_t>(64, (t + kPanels - 1) / kPanels);
  const auto add_block = [&](const at::Tensor& block) {
    for (int64_t panel = 0; panel < t; panel += width) {
      const int64_t here = std::min(width, t - panel);
      gram.narrow(0, panel, here)
          .narrow(1, panel, t - panel)
          .addmm_(block.narrow(1, panel, here).t(), block.narrow(1, panel, t - panel));
    }
  };
  if (rows_->table.defined()) {
    add_block(rows_->table);
  } else {
    for_each_block([&](const at::Tensor& block, int64_t) { add_block(block); });
  }
  for (int64_t panel = 0; panel < t; panel += width) {  // the rest by symmetry
    const int64_t here = std::min(width, t - panel), behind = t - panel - here;
    if (behind == 0) break;
    gram.narrow(0, panel + here, behind)
        .narrow(1, panel, here)
        .copy_(gram.narrow(0, panel, here).narrow(1, panel + here, behind).t());
  }
  rows_->table = at::Tensor();
  rows_->blocks.clear();
  std::vector<int64_t> all(static_cast<size_t>(t));
  std::iota(all.begin(), all.end(), 0);
  rows_->take(gram, all);
}

std::vector<double> MatchingPursuit::column(int64_t key) const {
  const at::Tensor key_t = host_.keys.narrow(0, key, 1).t();
  const at::Tensor logits = (host_.bias.defined() ? at::addmm(host_.bias.narrow(0, key, 1), host_.scaled_queries, key_t)
                                                  : at::mm(host_.scaled_queries, key_t))
                                .squeeze(1);
  return to_vector(logits.sub_(host_.row_max).to(at::kDouble).exp_());
}

// y - E[:,sel] w
std::vector<double> MatchingPursuit::residual(const State& state) const {
  std::vector<double> rest = target_;
  for (size_t i = 0; i < state.columns.size(); ++i) {
    const double weight = state.weights[i];
    const double* column = state.columns[i]->data();
    for (int64_t q = 0; q < n_; ++q) rest[static_cast<size_t>(q)] -= weight * column[q];
  }
  return rest;
}

// The k keys of highest correlation with the residual that are not taken, highest first, equal ones in order of
// position.
std::vector<int64_t> MatchingPursuit::best(State& state, int64_t k) const {
  rows_->need(state.order, {});
  std::vector<double> correlation = moment_;
  for (int64_t i = 0; i < state.size(); ++i) {
    const double w = state.weights[static_cast<size_t>(i)];
    const float* row = rows_->row[static_cast<size_t>(state.order[static_cast<size_t>(i)])];
    for (int64_t j = 0; j < source_len_; ++j) correlation[static_cast<size_t>(j)] -= w * row[j];
  }
  std::vector<int64_t> keys, likely;
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
  if (rows_->table.defined()) {
    likely = keys;
    const auto end = likely.begin() + std::min(kLookAhead, static_cast<int64_t>(likely.size()));
    std::partial_sort(likely.begin(), end, likely.end(), higher);
    likely.erase(end, likely.end());
  }
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
    for (const int64_t j : keys) {
      correlation[static_cast<size_t>(j)] = dot(column(j).data(), rest.data(), n_);
    }
    std::sort(keys.begin(), keys.end(), higher);
  }
  keys.resize(static_cast<size_t>(k));
  rows_->need(keys, likely);
  return keys;
}

// Appends a pick: its column, its row of the Gram matrix and of the factor.
void MatchingPursuit::add(State& state, int64_t key, Column known) const {
  state.order.push_back(key);
  state.taken[static_cast<size_t>(key)] = true;
  state.columns.push_back(known ? std::move(known) : std::make_shared<const std::vector<double>>(column(key)));
  const std::vector<double>& own = *state.columns.back();
  state.moment.push_back(dot(own.data(), target_.data(), n_));
  std::vector<double> gram;
  for (const auto& other : state.columns) gram.push_back(dot(own.data(), other->data(), n_));
  std::vector<double> row;
  double rest = gram.back();
  for (size_t i = 0; i + 1 < gram.size(); ++i) {
    if (state.dependent[i]) {
      row.push_back(0);
      continue;
    }
    const double value =
        (gram[i] - dot(row.data(), state.factor[i].data(), static_cast<int64_t>(i))) / state.factor[i][i];
    row.push_back(value);
    rest -= value * value;
  }
  const bool dependent = !(rest > kDependent * gram.back());
  row.push_back(dependent ? 0 : std::sqrt(rest));
  if (dependent) std::fill(row.begin(), row.end(), 0.0);
  state.gram.push_back(std::move(gram));
  state.factor.push_back(std::move(row));
  state.dependent.push_back(dependent);
  state.weights.push_back(settings_.lower);
}

// Clamped least squares over all picks.
void MatchingPursuit::solve(State& state) const {
  const auto t = static_cast<size_t>(state.size());
  std::vector<double> z(t, 0.0), w(t, 0.0);
  for (size_t i = 0; i < t; ++i) {
    if (state.dependent[i]) continue;
    z[i] = (state.moment[i] - dot(state.factor[i].data(), z.data(), static_cast<int64_t>(i))) / state.factor[i][i];
  }
  for (size_t i = t; i-- > 0;) {
    if (state.dependent[i]) continue;
    w[i] = z[i] / state.factor[i][i];
    for (size_t j = 0; j < i; ++j) z[j] -= state.factor[i][j] * w[i];
  }
  for (size_t i = 0; i < t; ++i) {
    state.weights[i] = state.dependent[i] ? settings_.lower : std::clamp(w[i], settings_.lower, settings_.upper);
  }
  state.solved = true;
}

// One iteration towards `target` picks; false when no key is left.
bool MatchingPursuit::advance(State& state, int64_t target) const {
  const Schedule now = schedule(settings_, state.size());
  const std::vector<int64_t> keys = best(state, std::min(now.k_choice, target - state.size()));
  if (keys.empty()) return false;
  for (const int64_t key : keys) add(state, key, nullptr);
  // Between solves the new keys carry the lower bound.
  if (!state.solved || state.iteration % now.nnls_interval == 0) solve(state);
  ++state.iteration;
  return true;
}

void MatchingPursuit::run(int64_t most) {
  if (most < 0 || most > source_len_) {
    throw Error(ErrorKind::kInternal, "more picks are asked for than there are keys", "matching pursuit", "");
  }
  if (rows_->blocks.empty() && (!rows_->table.defined() || most * kPartOfKeys > source_len_)) form_gram();
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
    for (const size_t i : kept) add(next, state.order[i], state.columns[i]);
    solve(next);
    next.solved = false;  // the first iteration after a drop solves whatever the interval
    state = std::move(next);
    while (state.size() < target && advance(state, target)) {
    }
    solve(state);
  }
  result.order = state.order;
  result.weights = state.weights;
  result.n_cut = state.n_cut;
  for (const bool dependent : state.dependent) result.n_dependent += dependent ? 1 : 0;
  return result;
}

}  // namespace kvc
