// What DevicePursuits keeps to itself: pursuits under way.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "harness/math/device_pursuit.h"

namespace kvc {

// Some heads of a DevicePursuits, going in step: the same number of rows each, of which some are fillers. There is room
// for `capacity` rows; what is behind `rows` is not set.
struct DevicePursuits::State {
  // Of a column's squared norm: what others leave of it when they span it.
  static constexpr double kDependent = 1e-10;

  std::vector<int64_t> heads;  // in the table
  int64_t rows = 0;
  // Of each head.
  std::vector<std::vector<bool>> real;  // its rows: whether they are picks
  std::vector<int64_t> size, n_taken;   // picks; picks and keys that were dropped
  std::vector<int64_t> iteration;
  std::vector<bool> solved;  // weights are those of a solve, with lower bounds for keys picked since

  at::Tensor first_row;  // (H,1) int64: of its keys in the table of all heads
  at::Tensor goal;       // (H,n) float64, y
  at::Tensor margin;     // (H,1) float64
  at::Tensor order;      // (H,capacity) int64
  at::Tensor columns;    // (H,capacity,n) float64; zeros in fillers
  at::Tensor inverse;    // (H,capacity,capacity) float64: M, lower; zeros where a row is dependent or a filler
  at::Tensor forward;    // (H,capacity) float64: M E^T y
  at::Tensor free;       // likewise: M^T M E^T y, weights without bounds
  at::Tensor dependent;  // (H,capacity) bool
  at::Tensor weights;    // (H,capacity) float64
  at::Tensor cuts;       // (H,capacity) int64: choices cut so far, after each row
  at::Tensor n_cut;      // (H) int64
  at::Tensor taken;      // (H,T) bool

  at::Tensor flags(const std::vector<bool>& of) const {
    const at::Tensor host = at::empty({static_cast<int64_t>(of.size())}, at::kBool);
    std::copy(of.begin(), of.end(), host.mutable_data_ptr<bool>());
    return host.to(taken.device());
  }
  // Heads whose count is above nought; undefined: all of them.
  at::Tensor flags_of(const std::vector<int64_t>& counts) const {
    std::vector<bool> some;
    for (const int64_t count : counts) some.push_back(count > 0);
    return std::find(some.begin(), some.end(), false) == some.end() ? at::Tensor() : flags(some);
  }
  // (H,rows) bool.
  at::Tensor fillers() const {
    const at::Tensor host = at::empty({static_cast<int64_t>(heads.size()), rows}, at::kBool);
    bool* to = host.mutable_data_ptr<bool>();
    for (const std::vector<bool>& own : real) {
      for (int64_t row = 0; row < rows; ++row) *to++ = !own[static_cast<size_t>(row)];
    }
    return host.to(taken.device());
  }

  // Where a choice began, to come back to.
  struct Mark {
    int64_t rows = 0;
    std::vector<int64_t> size, n_taken, iteration;
    std::vector<bool> solved;
    at::Tensor weights, free, n_cut;
  };
  Mark mark() const { return {rows, size, n_taken, iteration, solved, weights.clone(), free.clone(), n_cut.clone()}; }
  // `was_taken` when there were `first_row` rows.
  void back_to(const Mark& mark, const at::Tensor& was_taken, int64_t first_row_then) {
    rows = mark.rows;
    size = mark.size;
    n_taken = mark.n_taken;
    iteration = mark.iteration;
    solved = mark.solved;
    weights.copy_(mark.weights);
    free.copy_(mark.free);
    n_cut.copy_(mark.n_cut);
    for (std::vector<bool>& own : real) own.resize(static_cast<size_t>(rows));
    taken.copy_(was_taken);
    mark_taken(first_row_then);
  }
  // The picks in rows from `first` on are taken.
  void mark_taken(int64_t first) {
    if (rows == first) return;
    const at::Tensor keys = order.narrow(1, first, rows - first);
    const at::Tensor picks = fillers().narrow(1, first, rows - first).logical_not_();
    // Fillers name keys that may be anyone's: they say what is so already, and a pick elsewhere says more.
    at::Tensor count = at::zeros({taken.size(0), taken.size(1)}, order.options());
    count.scatter_add_(1, keys, picks.to(at::kLong));
    taken.logical_or_(count > 0);
  }
};

// The keys that a choice is made among; nothing: all of them.
struct DevicePursuits::View {
  at::Tensor keys;   // (H,k) int64, rising
  at::Tensor table;  // (H,k,n) float32, their columns of E
};

struct DevicePursuits::Choice {
  State::Mark before;
  at::Tensor residual;  // (H,n,1) float32
  at::Tensor least;     // (H,1) float64: the lowest correlation that was chosen
  at::Tensor live;      // (H) bool: heads that chose; undefined: all
};

}  // namespace kvc
