// Weights of a pursuit's picks: the Cholesky factor that grows with them, and solves by it.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "harness/math/double_products.h"
#include "harness/math/least_squares.h"
#include "harness/math/matching_pursuit_state.h"

namespace kvc {

using namespace products;

namespace {

// Of a column's squared norm: what others leave of it when they span it.
constexpr double kDependent = 1e-10;

}  // namespace

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

}  // namespace kvc
