// What a GPU's own kernels do of the pursuits of device_pursuit.h: a choice and everything that follows from it, in a
// few launches for many heads, instead of some 67 of LibTorch's operations. harness/attention/device_pursuit_kernels.h
// has them; without them the operations run.
//
// Letters as in device_pursuit.h; t_h picks of head h so far, J keys at hand.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace kvc {

// Some heads of one table, each with picks of its own number in its first rows; zeros behind them. `room` rows a head.
// All on one device and contiguous.
struct PursuitTensors {
  at::Tensor table;  // (all heads, T, n) float32, E^T
  // The same in steps of a 255th of each key's largest: (all heads, T, n') uint8, n' = pursuit_padded(n), zeros behind;
  // and these steps, (all heads, T) float32. Undefined where nobody scans.
  at::Tensor coarse, coarse_step;
  at::Tensor first_row;  // (H,1) int64: of its keys in the table, of all heads one behind the other
  at::Tensor goal;       // (H,n) float64, y
  at::Tensor margin;     // (H,1) float64: what float32 leaves uncertain of two correlations
  at::Tensor order;      // (H,room) int64
  at::Tensor inverse;    // (H,room,room) float64: M, lower; zeros where a row is dependent
  at::Tensor forward;    // (H,room) float64: M E^T y
  at::Tensor free;       // likewise: M^T M E^T y, weights without bounds
  at::Tensor dependent;  // (H,room) bool
  at::Tensor weights;    // (H,room) float64
  at::Tensor cuts;       // (H,room) int64: choices cut so far, after each row
  at::Tensor n_cut;      // (H) int64
  at::Tensor taken;      // (H,T) bool
  at::Tensor work;       // float64, for the kernels; pursuit_work() numbers
};

// An iteration, known to the host.
struct PursuitIteration {
  std::vector<int64_t> rows, picks;  // t_h; how many keys head h picks
  std::vector<bool> solves;          // whether its weights are solved for at the end
  at::Tensor at_hand;                // (H,J) int64, rising: the keys it picks among; undefined: all
  // Heads that pick among all keys, the candidates found by the coarse table; of theirs no choice counts as cut. Empty:
  // none.
  std::vector<bool> scans;
  double lower = 0, upper = 0;  // bounds of weights
};

// What an iteration makes new; order, inverse, forward, dependent, cuts and taken are written in place.
struct PursuitStep {
  at::Tensor weights, free, n_cut;  // as in PursuitTensors
  at::Tensor residual;              // (H,n) float32, before the picks; zeros of a head that picks nothing
  at::Tensor candidates;            // (H,C) int64, rising: the keys that were compared in float64
  at::Tensor least;                 // (H,1) float64: the lowest correlation that was chosen; +inf where none was
};

struct PursuitKernels {
  int64_t most_picks = 0;  // of a head in an iteration
  // y - E w of the first t_h picks: (H,n) float64.
  std::function<at::Tensor(const PursuitTensors& heads, const std::vector<int64_t>& rows)> residual;
  std::function<PursuitStep(const PursuitTensors& heads, const PursuitIteration& now)> advance;
};

// Keys whose correlations an iteration compares in float64, of n_keys it could choose.
inline constexpr int64_t kPursuitCandidates = 64;

// Queries of a row that is read 16 bytes at a time.
constexpr int64_t pursuit_padded(int64_t n_queries) {
  return (n_queries + 15) / 16 * 16;
}

// Numbers of float64 in `work`, of a head.
constexpr int64_t pursuit_work(int64_t n_queries, int64_t n_keys, int64_t room) {
  constexpr int64_t kFactorRows = 32, kMostCandidates = 256;
  return n_queries + (n_keys + 1) / 2 + kMostCandidates + 2 * (room + 1) + (room / kFactorRows + 1) * room;
}

}  // namespace kvc
