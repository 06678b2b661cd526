// Orthogonal matching pursuit of the attention mass (spec B.2; AM-OMP of arXiv:2602.16284): picks the columns of E, one
// or a few at a time, that best explain the row sums y = E 1, and refits their weights as it goes.
//
// Letters: E (n,T) = exp(S - m) with S the logits and m their row maximum, y (n) row sums of E, t picks, w (t) weights.
//
// The published loop forms an (n,T) product and solves least squares anew at every step. Here the Gram matrix G = E^T E
// is formed once (float32, half of it by symmetry), correlations are h - G[:,sel] w, and the Cholesky factor of the
// picks' own Gram matrix (float64) grows by a row a pick: O(t (T + n + t)) a step, nothing O(n T). Correlations that
// lie within G's rounding of the best are computed again in float64 from the columns themselves, so picks are those of
// a float64 loop.
//
// Memory: 4 T^2 bytes for G, 16 n t for the picks' columns, some (512, T) blocks while G is made: T = 12k, n = 50k,
// t = 600 takes 0.6 + 0.5 GB.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace kvc {

struct PursuitSettings {
  int64_t k_choice = 1;       // keys picked at a time
  int64_t nnls_interval = 1;  // iterations from one solve to the next
  bool progressive = false;   // k_choice and nnls_interval by picks so far: <300 (1,1), <1500 (2,2), else (4,2)
  double lower = 1e-12;       // weights are clamped least squares
  double upper = 1096.633;    // e^7
  // ln w below which a key is dropped for good once all are picked, and others picked in its place, at most three
  // times; nullopt = never.
  std::optional<double> drop_below;
};

struct PursuitPicks {
  std::vector<int64_t> order;   // distinct, in order of selection; fewer than asked where no key is left
  std::vector<double> weights;  // of a last solve over all picks, within [lower, upper]
  int64_t n_dropped = 0;        // keys excluded by the drop rule
  int64_t n_dependent = 0;      // picks whose column others already span: weight `lower`
};

class MatchingPursuit {
 public:
  // queries (n,d), keys (T,d) on one device, bias (T) float32 or undefined; row_max (n,1), row_sum (n,1) float32 over
  // all T. Forms G: n T^2 flops. Work on a GPU's tensors is done on the host after that.
  MatchingPursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias, const at::Tensor& row_max,
                  const at::Tensor& row_sum, const PursuitSettings& settings);

  // Picks up to `most` keys; the way to fewer is a part of the way to more.
  void run(int64_t most);
  // What a run for `target` <= most picks alone gives. With the drop rule the way up to `target` is shared and what
  // follows is not. Safe to call from several threads.
  PursuitPicks picks(int64_t target) const;

 private:
  struct State;
  bool advance(State& state, int64_t target) const;
  void solve(State& state) const;
  void add(State& state, int64_t key) const;
  std::vector<int64_t> best(const State& state, int64_t k) const;
  std::vector<double> residual(const State& state) const;
  std::vector<double> column(int64_t key) const;

  PursuitSettings settings_;
  int64_t n_ = 0, source_len_ = 0;
  at::Tensor queries_, keys_, bias_, row_max_;  // on the CPU, float32
  std::vector<double> target_;                  // y (n)
  at::Tensor gram_;                             // (T,T) float32
  std::vector<double> moment_;                  // h = E^T y (T)
  double largest_moment_ = 0;
  std::shared_ptr<const State> path_;  // of the longest run, without drops
  std::vector<int64_t> iterations_;    // after each of its picks
};

}  // namespace kvc
