#include "harness/math/matching_pursuit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/vector_clones.h"
#include "harness/math/attention.h"
#include "harness/math/exponential_table.h"
#include "harness/math/least_squares.h"

namespace kvc {
namespace {

constexpr int64_t kBlockQueries = 512;
constexpr int64_t kPanels = 8;
constexpr int64_t kMostCandidates = 64;
// Rows of G made at a time: that of the key picked and those of the likeliest to follow.
constexpr int64_t kRowsAtATime = 24;
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

template <class A, class B>
KVC_INLINE double sum_of_products(const A* a, const B* b, int64_t n) {
  double sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int64_t k = 0; k < 16; ++k) sums[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
  }
  for (; i < n; ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  for (int64_t k = 8; k > 0; k /= 2) {
    for (int64_t j = 0; j < k; ++j) sums[j] += sums[j + k];
  }
  return sums[0];
}

KVC_VECTOR_CLONES double dot(const double* a, const double* b, int64_t n) {
  return sum_of_products(a, b, n);
}

KVC_VECTOR_CLONES double dot(const double* a, const float* b, int64_t n) {
  return sum_of_products(a, b, n);
}

// a -= w0 b0 + w1 b1 + w2 b2 + w3 b3
KVC_VECTOR_CLONES void subtract(double* a, const double* w, const float* const* b, int64_t n) {
  const float *b0 = b[0], *b1 = b[1], *b2 = b[2], *b3 = b[3];
  for (int64_t i = 0; i < n; ++i) {
    a[i] -= (w[0] * static_cast<double>(b0[i]) + w[1] * static_cast<double>(b1[i])) +
            (w[2] * static_cast<double>(b2[i]) + w[3] * static_cast<double>(b3[i]));
  }
}

// a -= sum of w[i] b[i], whatever their number.
void subtract_all(std::vector<double>& a, const std::vector<double>& w, const std::vector<const float*>& b) {
  const auto n = static_cast<int64_t>(a.size());
  for (size_t i = 0; i < b.size(); i += 4) {
    double four[4] = {0, 0, 0, 0};
    const float* from[4] = {b[i], b[i], b[i], b[i]};
    for (size_t k = 0; k < 4 && i + k < b.size(); ++k) {
      four[k] = w[i + k];
      from[k] = b[i + k];
    }
    subtract(a.data(), four, from, n);
  }
}

int64_t rounded_up(int64_t x, int64_t unit) {
  return (x + unit - 1) / unit * unit;
}

std::vector<double> to_vector(const at::Tensor& values) {
  const at::Tensor flat = values.to(at::kDouble).contiguous().view(-1);
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

}  // namespace

// Rows of G: all at once, or those asked for, from the table E.
struct MatchingPursuit::Rows {
  std::unique_ptr<const ExponentialTable> table;  // E on the CPU, or
  at::Tensor device_table;                        // on a GPU (n,T), or neither
  std::vector<at::Tensor> blocks;                 // on the CPU, some rows each
  std::vector<const float*> row;                  // of each key, or nullptr
  std::mutex mutex;

  bool on_demand() const { return table != nullptr || device_table.defined(); }
  void take(const at::Tensor& block, const std::vector<int64_t>& keys) {
    blocks.push_back(block.cpu().contiguous());
    const float* data = blocks.back().const_data_ptr<float>();
    const auto width = static_cast<int64_t>(row.size());
    for (size_t i = 0; i < keys.size(); ++i) row[static_cast<size_t>(keys[i])] = data + static_cast<int64_t>(i) * width;
  }
  bool missing(const std::vector<int64_t>& keys) {
    const std::lock_guard lock(mutex);
    return std::any_of(keys.begin(), keys.end(), [&](int64_t key) { return row[static_cast<size_t>(key)] == nullptr; });
  }
  // Safe to call from several threads; what it has made is read without the lock afterwards.
  void need(const std::vector<int64_t>& keys, const std::vector<int64_t>& likely, int64_t most) {
    const std::lock_guard lock(mutex);
    std::vector<int64_t> missing;
    for (const int64_t key : keys) {
      if (row[static_cast<size_t>(key)] == nullptr) missing.push_back(key);
    }
    if (missing.empty()) return;
    for (const int64_t key : likely) {
      if (static_cast<int64_t>(missing.size()) >= most) break;
      const bool listed = std::find(missing.begin(), missing.end(), key) != missing.end();
      if (row[static_cast<size_t>(key)] == nullptr && !listed) missing.push_back(key);
    }
    if (table) {
      take(table->gram_rows(missing), missing);
      return;
    }
    const at::Tensor columns = device_table.index_select(1, at::tensor(missing, at::kLong).to(device_table.device()));
    take(at::mm(columns.t(), device_table), missing);
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
  int64_t n_cut = 0;            // choices among more than kMostCandidates
  std::vector<int64_t> likely;  // to be picked next
  bool solved = false;          // weights are those of a solve, with lower bounds for keys picked since

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
  queries_ = queries.to(at::kFloat);
  keys_ = keys.to(at::kFloat);
  if (bias.defined()) bias_ = bias.to(at::kFloat);
  row_max_ = row_max;
  rows_->row.assign(static_cast<size_t>(source_len_), nullptr);
  host_ = {queries_.cpu().mul(1.0 / std::sqrt(static_cast<double>(keys.size(1)))).contiguous(),
           keys_.cpu().contiguous(), bias_.defined() ? bias_.cpu() : bias_, row_max_.cpu().squeeze(1)};
  const bool fits = 4 * n_ * source_len_ <= kMostTableBytes;
  if (fits && queries_.is_cpu()) {
    rows_->table = std::make_unique<const ExponentialTable>(host_.scaled_queries, host_.keys, host_.bias, host_.row_max,
                                                            row_sum.squeeze(1));
    moment_ = rows_->table->moment();
  } else {
    if (fits) rows_->device_table = at::empty({n_, source_len_}, queries_.options());
    at::Tensor moment = at::zeros({source_len_}, queries_.options().dtype(at::kDouble));
    for_each_block([&](const at::Tensor& block, int64_t first) {
      if (fits) rows_->device_table.narrow(0, first, block.size(0)).copy_(block);
      moment.add_(at::mv(block.t(), row_sum.narrow(0, first, block.size(0)).squeeze(1)).to(at::kDouble));
    });
    moment_ = to_vector(moment.cpu());
  }
  for (const double h : moment_) largest_moment_ = std::max(largest_moment_, h);
}

// Calls work(rows of E (., T), index of the first).
void MatchingPursuit::for_each_block(const std::function<void(const at::Tensor&, int64_t)>& work) const {
  for (int64_t first = 0; first < n_; first += kBlockQueries) {
    const int64_t n_here = std::min(kBlockQueries, n_ - first);
    at::Tensor block = attention_logits(queries_.narrow(0, first, n_here), keys_, bias_);
    work(block.sub_(row_max_.narrow(0, first, n_here)).exp_(), first);
  }
}

// All of G.
void MatchingPursuit::form_gram() {
  const int64_t t = source_len_;
  at::Tensor gram = rows_->table ? at::empty({t, t}, queries_.options()) : at::zeros({t, t}, queries_.options());
  const int64_t width = std::max<int64_t>(64, (t + kPanels - 1) / kPanels);
  const auto add_block = [&](const at::Tensor& block) {
    for (int64_t panel = 0; panel < t; panel += width) {
      const int64_t here = std::min(width, t - panel);
      gram.narrow(0, panel, here)
          .narrow(1, panel, t - panel)
          .addmm_(block.narrow(1, panel, here).t(), block.narrow(1, panel, t - panel));
    }
  };
  if (rows_->table) {
    for (int64_t first = 0; first < t; first += kRowsAtATime) {
      std::vector<int64_t> keys(static_cast<size_t>(std::min(kRowsAtATime, t - first)));
      std::iota(keys.begin(), keys.end(), first);
      const int64_t panel = first / width * width;
      gram.narrow(0, first, static_cast<int64_t>(keys.size()))
          .narrow(1, panel, t - panel)
          .copy_(rows_->table->gram_rows(keys, panel).narrow(1, panel, t - panel));
    }
  } else if (rows_->device_table.defined()) {
    add_block(rows_->device_table);
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
  rows_->device_table = at::Tensor();
  rows_->blocks.clear();
  std::vector<int64_t> all(static_cast<size_t>(t));
  std::iota(all.begin(), all.end(), 0);
  rows_->take(gram, all);
}

std::vector<float> MatchingPursuit::column(int64_t key) const {
  if (rows_->table) return rows_->table->column(key);
  const at::Tensor key_t = host_.keys.narrow(0, key, 1).t();
  const at::Tensor logits = (host_.bias.defined() ? at::addmm(host_.bias.narrow(0, key, 1), host_.scaled_queries, key_t)
                                                  : at::mm(host_.scaled_queries, key_t))
                                .squeeze(1);
  const at::Tensor values = logits.sub_(host_.row_max).exp_().contiguous();
  return {values.const_data_ptr<float>(), values.const_data_ptr<float>() + n_};
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

// Appends a pick: its column, its row of the Gram matrix and of the factor.
void MatchingPursuit::add(State& state, int64_t key) const {
  const std::vector<float> values = column(key);
  const std::vector<double> own(values.begin(), values.end());
  std::vector<double> gram;
  for (const auto& other : state.columns) gram.push_back(dot(own.data(), other->data(), n_));
  gram.push_back(dot(own.data(), values.data(), n_));
  add(state, key, std::make_shared<const std::vector<float>>(values), dot(own.data(), target_.data(), n_),
      std::move(gram));
}

void MatchingPursuit::add(State& state, int64_t key, Column column, double moment, std::vector<double> gram) const {
  state.order.push_back(key);
  state.taken[static_cast<size_t>(key)] = true;
  state.columns.push_back(std::move(column));
  state.moment.push_back(moment);
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

// Whether the clamped weights are a fit. Where picks span one another, those before the clamp are as large as rounding
// makes them, of both signs, and what the clamp leaves can be worse than no weights at all.
bool MatchingPursuit::explains(const State& state) const {
  if (std::find(state.dependent.begin(), state.dependent.end(), true) != state.dependent.end()) return false;
  const std::vector<double> rest = residual(state);
  return !(dot(rest.data(), rest.data(), n_) > dot(target_.data(), target_.data(), n_));
}

// The minimum over the box itself, for picks that clamped least squares cannot weigh.
void MatchingPursuit::fit_box(State& state) const {
  const int64_t t = state.size();
  const at::Tensor columns = at::empty({t, n_}, at::kFloat);
  for (int64_t i = 0; i < t; ++i) {
    const Column& column = state.columns[static_cast<size_t>(i)];
    std::copy(column->begin(), column->end(), columns.mutable_data_ptr<float>() + i * n_);
  }
  const at::Tensor target = at::tensor(target_, at::kDouble).to(at::kFloat);
  const NormalEquations equations(columns.t().contiguous(), target);
  state.weights = to_vector(equations.fit_active_set(t, {settings_.lower, settings_.upper}).solution);
  for (double& w : state.weights) w = std::clamp(w, settings_.lower, settings_.upper);  // float32 rounds the bounds
}

// One iteration towards `target` picks; false when no key is left.
bool MatchingPursuit::advance(State& state, int64_t target) const {
  const Schedule now = schedule(settings_, state.size());
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
