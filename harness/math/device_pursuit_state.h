// Internal state of DevicePursuits: the pursuits under way.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "harness/math/device_pursuit.h"
#include "harness/math/to_device.h"

namespace kvc {

// Some heads of a DevicePursuits, each with picks of its own number in its first rows; what is behind them is zeros.
// There is room for `capacity` picks and, behind them, for a row that nobody reads: of heads that pick nothing when
// others do.
struct DevicePursuits::State : PursuitTensors {
  // Of a column's squared norm: what others leave of it when they span it.
  static constexpr double kDependent = 1e-10;

  std::vector<int64_t> heads;  // in the table
  // Of each head.
  std::vector<int64_t> size, n_taken;  // picks; picks and keys that were dropped
  std::vector<int64_t> iteration;
  std::vector<bool> solved;  // weights are those of a solve, with lower bounds for keys picked since

  // room = capacity + 1
  at::Tensor position;  // (H,1) int64: size; with kernels only where nobody has picked since place()
  at::Tensor columns;   // (H,capacity + 1,n) float64; undefined with kernels, which read the table

  int64_t rows() const { return *std::max_element(size.begin(), size.end()); }
  // Of rows [first, first + n), whether they hold picks: (H,n) bool.
  at::Tensor present(int64_t first, int64_t n) const {
    return at::arange(first, first + n, position.options()).unsqueeze(0) < position;
  }
  void place() { position = to_device(at::tensor(size, at::kLong), taken.device()).unsqueeze(1); }

  // Where a choice began, to come back to.
  struct Mark {
    std::vector<int64_t> size, n_taken, iteration;
    std::vector<bool> solved;
    at::Tensor weights, free, n_cut;
  };
  // Kernels make these tensors anew, operations write into them.
  Mark mark() const {
    const auto kept = [&](const at::Tensor& tensor) { return columns.defined() ? tensor.clone() : tensor; };
    return {size, n_taken, iteration, solved, kept(weights), kept(free), kept(n_cut)};
  }
  // One head's numbers of the host; the device's follow in settle().
  void back_to(const Mark& mark, size_t h) {
    size[h] = mark.size[h];
    n_taken[h] = mark.n_taken[h];
    iteration[h] = mark.iteration[h];
    solved[h] = mark.solved[h];
  }
  // Heads of `which` (H) bool come back to the mark's weights.
  void restore(const Mark& mark, const at::Tensor& which) {
    const at::Tensor column = which.unsqueeze(1);
    weights = at::where(column, mark.weights, weights);
    free = at::where(column, mark.free, free);
    n_cut = at::where(which, mark.n_cut, n_cut);
  }
  // Zeros behind each head's picks, in rows [first, end); keys are taken that were so in `was_taken` or are picks
  // there.
  void settle(const at::Tensor& was_taken, int64_t first, int64_t end) {
    place();
    const at::Tensor nothing = present(first, end - first).logical_not_();
    if (columns.defined()) columns.narrow(1, first, end - first).masked_fill_(nothing.unsqueeze(2), 0.0);
    inverse.narrow(1, first, end - first).masked_fill_(nothing.unsqueeze(2), 0.0);
    forward.narrow(1, first, end - first).masked_fill_(nothing, 0.0);
    dependent.narrow(1, first, end - first).masked_fill_(nothing, false);
    taken.copy_(was_taken);
    mark_taken(first);
  }
  // The picks in rows from `first` on are taken.
  void mark_taken(int64_t first) {
    const int64_t n = rows() - first;
    if (n <= 0) return;
    at::Tensor count = at::zeros({taken.size(0), taken.size(1)}, order.options());
    count.scatter_add_(1, order.narrow(1, first, n), present(first, n).to(at::kLong));
    taken.logical_or_(count > 0);
  }
};

// What an iteration does to each head.
struct DevicePursuits::Iteration {
  std::vector<int64_t> k_of;  // keys it picks
  std::vector<bool> solves;   // whether weights are solved for at its end
  int64_t most = 0;           // of k_of
  // The same on the device, (H,1) int64 and bool; undefined where all heads pick as many, and where all or none are
  // solved for.
  at::Tensor k_there, solves_there;

  std::vector<bool> who_picks() const {
    std::vector<bool> who;
    for (const int64_t k : k_of) who.push_back(k > 0);
    return who;
  }
  bool any_solves() const { return std::find(solves.begin(), solves.end(), true) != solves.end(); }
  // Heads that pick an i-th key (counted from 0), (H,1) bool; undefined: all.
  at::Tensor picks_more_than(int64_t i) const { return k_there.defined() ? k_there > i : at::Tensor(); }
};

// The keys that a choice is made among; nothing: all of them.
struct DevicePursuits::View {
  at::Tensor keys;   // (H,k) int64, rising
  at::Tensor table;  // (H,k,n) float32, their columns of E; undefined with kernels
  // Heads that choose among all keys nevertheless; empty: none. Without kernels also those of the device, (H) bool, and
  // keys that are not a head's to choose, (H,T) bool.
  std::vector<bool> scans;
  at::Tensor scans_there, barred;
};

struct DevicePursuits::Choice {
  State::Mark before;
  at::Tensor residual;    // (H,n,1) float32
  at::Tensor candidates;  // (H,C) int64: the keys that were compared in float64
  at::Tensor least;       // (H,1) float64: the lowest correlation that was chosen
  at::Tensor live;        // (H,1) bool: heads that chose; undefined: all
};

}  // namespace kvc
