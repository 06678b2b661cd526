// From a path to the picks of a target: its first rows, keys that are dropped and others in their place.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "harness/math/block_cholesky.h"
#include "harness/math/device_pursuit_state.h"
#include "harness/math/least_squares.h"

namespace kvc {
namespace {

constexpr int kMostDropRounds = 3;

std::vector<std::vector<double>> table_on_host(const at::Tensor& table) {
  const at::Tensor host = table.to(at::kCPU, at::kDouble).contiguous();
  std::vector<std::vector<double>> rows;
  const auto* numbers = host.const_data_ptr<double>();
  for (int64_t i = 0; i < host.size(0); ++i)
    rows.emplace_back(numbers + i * host.size(1), numbers + (i + 1) * host.size(1));
  return rows;
}

at::Tensor indices(const std::vector<int64_t>& list, const at::Tensor& like) {
  return to_device(at::tensor(list, at::kLong), like.device());
}

}  // namespace

// No picks yet, of some heads of the table.
DevicePursuits::State DevicePursuits::begin(const std::vector<int64_t>& heads, int64_t capacity) const {
  const auto h = static_cast<int64_t>(heads.size());
  const int64_t n = table_.size(2), t = table_.size(1);
  const at::TensorOptions doubles = target_.options(), whole = doubles.dtype(at::kLong),
                          flags = doubles.dtype(at::kBool);
  State state;
  state.heads = heads;
  state.size.assign(heads.size(), 0);
  state.n_taken = state.iteration = state.size;
  state.solved.assign(heads.size(), false);
  const at::Tensor which = indices(heads, table_);
  const int64_t room = capacity + 1;
  state.first_row = (which * t).unsqueeze(1);
  state.position = at::zeros({h, 1}, whole);
  state.goal = target_.index_select(0, which);
  state.margin = margin_.index_select(0, which).unsqueeze(1);
  state.order = at::zeros({h, room}, whole);
  state.table = table_;
  state.coarse = coarse_;
  state.coarse_step = coarse_step_;
  if (kernels_ == nullptr) state.columns = at::zeros({h, room, n}, doubles);
  if (kernels_ != nullptr) state.work = at::empty({h * pursuit_work(n, t, room)}, doubles);
  state.inverse = at::zeros({h, room, room}, doubles);
  state.forward = at::zeros({h, room}, doubles);
  state.free = at::zeros({h, room}, doubles);
  state.dependent = at::zeros({h, room}, flags);
  state.weights = at::zeros({h, room}, doubles);
  state.cuts = at::zeros({h, room}, whole);
  state.n_cut = at::zeros({h}, whole);
  state.taken = at::zeros({h, t}, flags);
  return state;
}

// The first picks of the path, solved; shares what does not change.
DevicePursuits::State DevicePursuits::prefix(const std::vector<int64_t>& targets) const {
  State part = *path_;
  for (size_t h = 0; h < targets.size(); ++h) {
    part.size[h] = std::min(targets[h], path_->size[h]);
    part.n_taken[h] = part.size[h];
    part.iteration[h] = part.size[h] > 0 ? iterations_[static_cast<size_t>(part.size[h] - 1)] : 0;
  }
  part.place();
  part.weights = at::zeros_like(path_->weights);
  part.free = at::zeros_like(path_->free);
  part.taken = at::zeros_like(path_->taken);
  part.n_cut = at::zeros_like(path_->n_cut);
  if (part.rows() == 0) return part;
  part.mark_taken(0);
  part.n_cut = path_->cuts.gather(1, (part.position - 1).clamp_min_(0)).mul_(part.position > 0).squeeze(1);
  solve_anew(part);
  return part;
}

// Some heads of a state with the rows `kept` of their picks, solved; the others stay excluded.
DevicePursuits::State DevicePursuits::without(const State& state, const std::vector<int64_t>& members,
                                              const std::vector<std::vector<int64_t>>& kept,
                                              const std::vector<int64_t>& targets) const {
  const auto n_heads = static_cast<int64_t>(members.size());
  int64_t rows = 0;
  for (const auto& list : kept) rows = std::max(rows, static_cast<int64_t>(list.size()));
  std::vector<int64_t> heads;
  for (const int64_t member : members) heads.push_back(state.heads[static_cast<size_t>(member)]);

  State next = begin(heads, std::max(rows, *std::max_element(targets.begin(), targets.end())));
  const at::Tensor which = indices(members, table_);
  next.taken = state.taken.index_select(0, which);
  next.n_cut = state.n_cut.index_select(0, which);
  std::vector<int64_t> index(static_cast<size_t>(n_heads * rows), 0);
  for (size_t i = 0; i < members.size(); ++i) {
    const auto member = static_cast<size_t>(members[i]);
    std::copy(kept[i].begin(), kept[i].end(), index.begin() + static_cast<int64_t>(i) * rows);
    next.size[i] = static_cast<int64_t>(kept[i].size());
    next.n_taken[i] = state.n_taken[member];
    next.iteration[i] = state.iteration[member] + 1;
  }
  if (rows == 0) return next;
  const at::Tensor of = indices(index, table_).view({n_heads, rows});
  next.place();
  const at::Tensor nothing = next.present(0, rows).logical_not_();
  next.order.narrow(1, 0, rows).copy_(state.order.index_select(0, which).gather(1, of));
  const at::Tensor columns = table_rows(next, next.order.narrow(1, 0, rows)).to(at::kDouble);
  columns.masked_fill_(nothing.unsqueeze(2), 0.0);
  if (next.columns.defined()) next.columns.narrow(1, 0, rows).copy_(columns);
  const at::Tensor gram = at::bmm(columns, columns.transpose(1, 2));
  const at::Tensor moment = at::bmm(columns, next.goal.unsqueeze(2));

  // M at once, unless a pick depends on others, which takes one row after another.
  const at::Tensor own = gram.diagonal(0, 1, 2);
  const at::Tensor unit = at::eye(rows, nothing.options()).unsqueeze(0).logical_and(nothing.unsqueeze(2));
  const BlockCholesky factor(at::where(unit, 1.0, gram));
  const at::Tensor spanned = factor.diagonal().square() <= own * State::kDependent;
  const at::Tensor dependent = at::logical_or(factor.failed(), at::logical_and(spanned, nothing.logical_not()).any(1));
  if (dependent.any().item<bool>()) {
    for (int64_t k = 0; k < rows; ++k) {
      next.position.fill_(k);
      push(next, gram.select(1, k).narrow(1, 0, k + 1), own.narrow(1, k, 1), moment.select(1, k));
    }
    next.place();
    next.dependent.narrow(1, 0, rows).masked_fill_(nothing, false);
  } else {
    const at::Tensor inverse = factor.inverse_factors().masked_fill_(nothing.unsqueeze(2), 0.0);
    next.inverse.narrow(1, 0, rows).narrow(2, 0, rows).copy_(inverse);
    next.forward.narrow(1, 0, rows).copy_(at::bmm(inverse, moment).squeeze(2));
  }
  solve_anew(next);
  return next;
}

// Results of some heads of a state whose weights are those of a solve.
void DevicePursuits::finish(const State& state, const std::vector<int64_t>& members,
                            std::vector<PursuitPicks>& results) const {
  const int64_t n_rows = state.rows();
  if (members.empty() || n_rows == 0) return;
  const at::Tensor rest = residual(state).squeeze(2);
  const at::Tensor dependent = at::logical_and(state.dependent.narrow(1, 0, n_rows), state.present(0, n_rows)).sum(1);
  const auto facts = table_on_host(at::stack(
      {dependent.to(at::kDouble), state.n_cut.to(at::kDouble), rest.square().sum(1), state.goal.square().sum(1)}, 1));
  const auto weights = table_on_host(state.weights.narrow(1, 0, n_rows));
  const at::Tensor order = state.order.narrow(1, 0, n_rows).cpu().contiguous();
  for (const int64_t member : members) {
    const auto h = static_cast<size_t>(member);
    PursuitPicks& result = results[static_cast<size_t>(state.heads[h])];
    const int64_t own = state.size[h];
    const int64_t* keys = order.const_data_ptr<int64_t>() + member * n_rows;
    result.order.assign(keys, keys + own);
    result.weights.assign(weights[h].begin(), weights[h].begin() + own);
    result.n_dependent = static_cast<int64_t>(facts[h][0]);
    result.n_cut = static_cast<int64_t>(facts[h][1]);
    // As MatchingPursuit: clamped least squares of picks that span one another can be worse than no weights at all.
    if (own == 0 || (result.n_dependent == 0 && !(facts[h][2] > facts[h][3]))) continue;
    const at::Tensor picked = state.order[member].narrow(0, 0, own);
    const at::Tensor columns = table_[state.heads[h]].index_select(0, picked).t();
    const NormalEquations equations(columns.contiguous(), state.goal[member].to(at::kFloat));
    const BoxedFit fit = equations.fit_active_set(own, {settings_.lower, settings_.upper});
    result.weights = table_on_host(fit.solution.unsqueeze(0)).front();
    for (double& w : result.weights) w = std::clamp(w, settings_.lower, settings_.upper);  // float32 rounds the bounds
  }
}

std::vector<PursuitPicks> DevicePursuits::picks(const std::vector<int64_t>& targets) const {
  std::vector<PursuitPicks> results(targets.size());
  State state = prefix(targets);
  for (int round = 0; settings_.drop_below && round < kMostDropRounds && state.rows() > 0; ++round) {
    const auto weights = table_on_host(state.weights.narrow(1, 0, state.rows()));
    std::vector<int64_t> done, dropping, some_targets;
    std::vector<std::vector<int64_t>> kept;
    for (size_t h = 0; h < state.heads.size(); ++h) {
      std::vector<int64_t> stays;
      for (int64_t row = 0; row < state.size[h]; ++row) {
        if (!(std::log(weights[h][static_cast<size_t>(row)]) < *settings_.drop_below)) stays.push_back(row);
      }
      const int64_t n_dropped = state.size[h] - static_cast<int64_t>(stays.size());
      const auto head = static_cast<size_t>(state.heads[h]);
      results[head].n_dropped += n_dropped;
      if (n_dropped == 0) {
        done.push_back(static_cast<int64_t>(h));
        continue;
      }
      dropping.push_back(static_cast<int64_t>(h));
      kept.push_back(std::move(stays));
      some_targets.push_back(targets[head]);
    }
    finish(state, done, results);
    if (dropping.empty()) return results;
    state = without(state, dropping, kept, some_targets);
    drive(state, some_targets);
    solve_anew(state);
  }
  std::vector<int64_t> all(state.heads.size());
  std::iota(all.begin(), all.end(), 0);
  finish(state, all, results);
  return results;
}

}  // namespace kvc
