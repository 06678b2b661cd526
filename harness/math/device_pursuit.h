// Matching pursuit where the tensors are: every step is a few LibTorch operations, and the host waits for none of them
// until picks are read. For GPUs; the same operations run on the CPU, where the judge of matching_pursuit.h checks
// them.
//
// Letters: E (n,T) = exp(S - m), y (n) its row sums, t picks, w (t) weights, r = y - E[:,picked] w.
//
// Correlations E^T r are formed anew at every choice from the table itself, one float32 product that reads 4 n T bytes;
// a Gram matrix of all keys would be 4 T^2 bytes, and its rows are of use only where they are picked. The 64 best are
// then compared in float64, so picks are those of a float64 loop wherever the float32 product tells the 64 from the
// rest; where it does not, the choice is counted (n_cut). In place of the growing Cholesky factor L of the picks' Gram
// matrix its inverse M grows by a row a pick: w = M^T M E^T y is two products, where solves with L are chains of T
// dependent steps that leave a GPU idle.
//
// Cost a choice: 4 n T bytes + 16 n t + 16 t^2, some 40 launches a pick. Memory: 4 n T, 8 n t, 16 t^2.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "harness/math/matching_pursuit.h"

namespace kvc {

class DevicePursuit final : public Pursuit {
 public:
  // Arguments as MatchingPursuit's, on any device.
  DevicePursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias, const at::Tensor& row_max,
                const at::Tensor& row_sum, const PursuitSettings& settings);
  ~DevicePursuit() override;

  void run(int64_t most) override;
  // Reads one small table for each target, and one more for each time that keys are dropped.
  PursuitPicks picks(int64_t target) const override;

 private:
  struct State;
  bool advance(State& state, int64_t target) const;
  at::Tensor best(State& state, int64_t k) const;
  void add(State& state, const at::Tensor& key) const;
  void push(State& state, const at::Tensor& gram, const at::Tensor& moment) const;
  void solve(State& state) const;
  at::Tensor residual(const State& state) const;
  State prefix(int64_t n_picks) const;
  State without(const State& state, const std::vector<int64_t>& kept, int64_t capacity) const;

  PursuitSettings settings_;
  at::Tensor table_;   // (T,n) float32, E^T
  at::Tensor target_;  // (n) float64, y
  at::Tensor margin_;  // what float32 leaves uncertain of two correlations, one number
  std::unique_ptr<State> path_;
  std::vector<int64_t> iterations_;  // after each of its picks
};

}  // namespace kvc
