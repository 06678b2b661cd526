// Matching pursuits of many heads at once where the tensors are: every step is a few kernels, or LibTorch operations,
// over all heads. For GPUs; both ways run on the CPU in tests, held against the judge of the CPU's own way.
//
// Letters: H heads, E (n,T) = exp(S - m) of each, y (n) its row sums, t picks, w (t) weights, r = y - E[:,picked] w.
//
// Correlations are formed anew from the table E itself, a float32 product that reads 4 n T bytes: a Gram matrix of all
// keys would be 4 T^2 bytes, and its rows are of use only where they are picked. So as not to read the whole table for
// every pick, up to 32 choices are made by less, then one product over the whole table checks them all: of each head a
// choice that another key could have won is taken back with those behind it, and the next ones begin there. Of a run
// between two checks a head makes its choices in one of two ways, by what the last run would have cost either way:
// - among the keys at hand, the 2,048 of highest correlation at the last check. Enough for most heads; where columns
//   are much alike (those of the lowest layers) a pick changes the order of all, and choices are soon taken back;
// - by a scan of all keys in a coarse table, 8 bits a number: it reads a quarter, and need only find the 64 best, for
//   those are compared in float64 in any case. The first choice of a run is made among the keys at hand, whose order
//   the check has just formed in float32, so every run brings a head on.
// Hence picks are those of a float64 loop over all keys wherever the float32 product tells the 64 from the rest; where
// it does not, the choice is counted (n_cut).
//
// In place of the growing Cholesky factor L of the picks' Gram matrix its inverse M grows by a row a pick: w = M^T M
// E^T y is a sum of rows of M, where solves with L are chains of T dependent steps that leave a GPU idle.
//
// Every operation is for all heads, each of which has its own number of picks. One that has all of its own, or whose
// iteration picks fewer keys, writes zeros behind them meanwhile. The host waits once a check, in picks() three times
// for the results, and where keys are dropped a few times a round; what it sends goes through pinned memory without a
// wait. The waits of run() are counted on a pretended GPU, for equal and unequal targets
// (methods/gpu_batches_test.cpp).
//
// With kernels (pursuit_kernels.h) an iteration of one pick is 6 launches, and what checks ask for adds 0.7 of a
// launch; columns are read from the table where they lie. Without, LibTorch's operations do the same in 67 launches a
// pick, up to 81 where targets differ (all counted likewise), and a scan reads the float32 table, of all heads.
//
// Cost a head and pick: 8 n t bytes for columns and 8 t^2 for M (16 n t + 16 t^2 without kernels), and of the table's
// 4 n T bytes the part n_readings() per pick: 0.07 where no choice is taken back, 0.3 where keys at hand are never
// enough. Memory a head: bytes().
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "harness/math/matching_pursuit.h"
#include "harness/math/pursuit_kernels.h"

namespace kvc {

// Picks are made among so many keys (65 at least, for 64 are compared in float64; a sixteenth of all at most), and so
// many choices are checked at once. Where 65 are more than a quarter of the keys, picks are made among all of them and
// need no check.
struct KeysAtHand {
  int64_t keys = 2048;
  int64_t choices = 32;
};

class DevicePursuits {
 public:
  // Heads of one shape on one device: queries (H,n,d), keys (H,T,d), bias (H,T) float32 or undefined, row_max and
  // row_sum (H,n,1) float32 over all T. `kernels` of that device outlive this; null: LibTorch's operations.
  DevicePursuits(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias, const at::Tensor& row_max,
                 const at::Tensor& row_sum, const PursuitSettings& settings, const KeysAtHand& at_hand = {},
                 const PursuitKernels* kernels = nullptr);
  ~DevicePursuits();

  // What a head takes of memory, with kernels or without.
  static int64_t bytes(int64_t n_queries, int64_t source_len, int64_t target_len, bool with_kernels);

  // Picks up to most[h] keys of head h; the way to fewer is a part of the way to more.
  void run(const std::vector<int64_t>& most);
  // Pursuit::picks() of every head, targets[h] <= most[h].
  std::vector<PursuitPicks> picks(const std::vector<int64_t>& targets) const;
  // What choices have cost so far: those that checks took back, and how many heads' tables were read, parts of one
  // counted as parts by their bytes; 1 a choice and head without keys at hand.
  int64_t n_taken_back() const { return n_taken_back_; }
  double n_readings() const { return n_readings_; }

 private:
  struct State;
  struct View;
  struct Choice;
  struct Iteration;
  State begin(const std::vector<int64_t>& heads, int64_t capacity) const;
  void drive(State& state, const std::vector<int64_t>& targets) const;
  void drive_on(State& state, const std::vector<int64_t>& targets) const;
  bool advance(State& state, const std::vector<int64_t>& targets, const View& view, Choice* choice) const;
  void advance_by_kernels(State& state, const Iteration& now, const View& view, Choice* choice) const;
  void count_readings(const Iteration& now, const View& view) const;
  at::Tensor best(State& state, const Iteration& now, const View& view, Choice* choice) const;
  Iteration next_iteration(const State& state, const std::vector<int64_t>& targets) const;
  struct Verdict;
  Verdict check(const State& state, const View& view, const at::Tensor& taken, const std::vector<Choice>& choices,
                const at::Tensor& correlations) const;
  void mask_compared(const State& state, const std::vector<Choice>& choices, at::Tensor& correlations) const;
  void take_back(State& state, const std::vector<Choice>& choices, const std::vector<int64_t>& right,
                 const at::Tensor& right_there, const at::Tensor& taken, int64_t first) const;
  void add(State& state, const at::Tensor& key, int64_t i, const Iteration& now) const;
  void push(State& state, const at::Tensor& gram, const at::Tensor& own, const at::Tensor& moment) const;
  void solve(State& state, const at::Tensor& whose) const;
  void solve_anew(State& state) const;
  at::Tensor residual(const State& state) const;
  at::Tensor correlate(const State& state, const at::Tensor& residuals, const std::vector<bool>& whose) const;
  void make_coarse();
  // Of a head's table, in bytes: what a choice reads of it among the keys at hand (their own copy without kernels), and
  // by a scan.
  double view_part() const { return static_cast<double>(at_hand_.keys) / static_cast<double>(table_.size(1)); }
  double scan_part() const;
  at::Tensor table_rows(const State& state, const at::Tensor& keys) const;
  View view_of(const State& state, const at::Tensor& correlations, const std::vector<bool>& scans) const;
  State prefix(const std::vector<int64_t>& targets) const;
  State without(const State& state, const std::vector<int64_t>& members, const std::vector<std::vector<int64_t>>& kept,
                const std::vector<int64_t>& targets) const;
  void finish(const State& state, const std::vector<int64_t>& members, std::vector<PursuitPicks>& results) const;

  PursuitSettings settings_;
  KeysAtHand at_hand_;
  const PursuitKernels* kernels_;
  bool has_view_;                    // else all keys are at hand
  at::Tensor table_;                 // (H,T,n) float32, E^T
  at::Tensor coarse_, coarse_step_;  // as in PursuitTensors; with kernels and a view
  at::Tensor target_;                // (H,n) float64, y
  at::Tensor margin_;                // (H) float64: what float32 leaves uncertain of two correlations
  std::unique_ptr<State> path_;
  std::vector<int64_t> iterations_;  // after each of its picks
  mutable std::atomic<int64_t> n_taken_back_ = 0;
  mutable std::atomic<double> n_readings_ = 0;
};

// The same of one head. queries (n,d), keys (T,d), bias (T), row_max and row_sum (n,1).
class DevicePursuit final : public Pursuit {
 public:
  DevicePursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias, const at::Tensor& row_max,
                const at::Tensor& row_sum, const PursuitSettings& settings, const PursuitKernels* kernels = nullptr);

  void run(int64_t most) override { pursuits_.run({most}); }
  PursuitPicks picks(int64_t target) const override { return pursuits_.picks({target}).front(); }

 private:
  DevicePursuits pursuits_;
};

}  // namespace kvc
