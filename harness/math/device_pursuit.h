// Matching pursuits of many heads at once where the tensors are: every step is a few LibTorch operations over all
// heads. For GPUs; the same operations run on the CPU, where the judge of matching_pursuit.h checks them.
//
// Letters: H heads, E (n,T) = exp(S - m) of each, y (n) its row sums, t picks, w (t) weights, r = y - E[:,picked] w.
//
// Correlations are formed anew from the table E itself, a float32 product that reads 4 n T bytes: a Gram matrix of all
// keys would be 4 T^2 bytes, and its rows are of use only where they are picked. So as not to read the whole table for
// every pick, picks are made among the 2,048 keys of highest correlation for 32 choices; then one product over the
// whole table checks all 32: a choice that a key outside could have won is taken back with all behind it, and the next
// 32 begin there with other (and twice as many) keys. The 64 best of a choice are compared in float64. Hence picks are
// those of a float64 loop over all keys wherever the float32 product tells the 64 from the rest; where it does not, the
// choice is counted (n_cut).
//
// In place of the growing Cholesky factor L of the picks' Gram matrix its inverse M grows by a row a pick: w = M^T M
// E^T y is a sum of rows of M, where solves with L are chains of T dependent steps that leave a GPU idle.
//
// Heads go in step. One that has its picks, or whose iteration picks fewer keys, gets fillers: columns of zeros, which
// change nothing. The host waits once for 32 choices of all heads, and where keys are dropped.
//
// Cost a head and pick: 16 n t + 16 t^2 bytes for columns and M, 4 n 2,048 for the keys at hand, 4 n T / 32 for the
// check; 64 launches a pick, whatever H. Memory a head: bytes().
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "harness/math/matching_pursuit.h"

namespace kvc {

// Picks are made among so many keys (65 at least, for 64 are compared in float64), and so many choices are checked at
// once. Where that is more than half of the keys, picks are made among all of them and need no check.
struct KeysAtHand {
  int64_t keys = 2048;
  int64_t choices = 32;
};

class DevicePursuits {
 public:
  // Heads of one shape on one device: queries (H,n,d), keys (H,T,d), bias (H,T) float32 or undefined, row_max and
  // row_sum (H,n,1) float32 over all T.
  DevicePursuits(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias, const at::Tensor& row_max,
                 const at::Tensor& row_sum, const PursuitSettings& settings, const KeysAtHand& at_hand = {});
  ~DevicePursuits();

  // What a head takes of memory.
  static int64_t bytes(int64_t n_queries, int64_t source_len, int64_t target_len);

  // Picks up to most[h] keys of head h; the way to fewer is a part of the way to more.
  void run(const std::vector<int64_t>& most);
  // Pursuit::picks() of every head, targets[h] <= most[h].
  std::vector<PursuitPicks> picks(const std::vector<int64_t>& targets) const;
  // Choices that checks took back so far, of all heads.
  int64_t n_taken_back() const { return n_taken_back_; }

 private:
  struct State;
  struct View;
  struct Choice;
  State begin(const std::vector<int64_t>& heads, int64_t capacity) const;
  void drive(State& state, const std::vector<int64_t>& targets) const;
  bool advance(State& state, const std::vector<int64_t>& targets, const View& view, Choice* choice) const;
  at::Tensor best(State& state, const std::vector<int64_t>& k_of, const View& view, Choice* choice) const;
  std::vector<int64_t> keys_to_pick(const State& state, const std::vector<int64_t>& targets) const;
  int64_t check(const State& state, const View& view, const at::Tensor& taken, const std::vector<Choice>& choices,
                const at::Tensor& correlations) const;
  void add(State& state, const at::Tensor& key, const std::vector<bool>& live) const;
  void push(State& state, const at::Tensor& gram, const at::Tensor& moment) const;
  void solve(State& state, const std::vector<bool>& whose) const;
  void solve_anew(State& state) const;
  at::Tensor residual(const State& state) const;
  at::Tensor correlate(const State& state, const at::Tensor& residuals) const;
  at::Tensor table_rows(const State& state, const at::Tensor& keys) const;
  View view_of(const State& state, const at::Tensor& correlations, int64_t n_keys) const;
  State prefix(const std::vector<int64_t>& targets) const;
  State without(const State& state, const std::vector<int64_t>& members, const std::vector<std::vector<int64_t>>& kept,
                const std::vector<int64_t>& targets) const;
  void finish(const State& state, const std::vector<int64_t>& members, std::vector<PursuitPicks>& results) const;

  PursuitSettings settings_;
  KeysAtHand at_hand_;
  at::Tensor table_;   // (H,T,n) float32, E^T
  at::Tensor target_;  // (H,n) float64, y
  at::Tensor margin_;  // (H) float64: what float32 leaves uncertain of two correlations
  std::unique_ptr<State> path_;
  std::vector<int64_t> iterations_;  // after each of its rows
  mutable std::atomic<int64_t> n_taken_back_ = 0;
};

// The same of one head. queries (n,d), keys (T,d), bias (T), row_max and row_sum (n,1).
class DevicePursuit final : public Pursuit {
 public:
  DevicePursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias, const at::Tensor& row_max,
                const at::Tensor& row_sum, const PursuitSettings& settings);

  void run(int64_t most) override { pursuits_.run({most}); }
  PursuitPicks picks(int64_t target) const override { return pursuits_.picks({target}).front(); }

 private:
  DevicePursuits pursuits_;
};

}  // namespace kvc
