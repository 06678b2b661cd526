// Orthogonal matching pursuit of the attention mass (AM-OMP, Algorithm 1 of arXiv:2602.16284): picks the columns of E,
// one or a few at a time, that best explain the row sums y = E 1, and refits their weights as it goes.
//
// Letters: E (n,T) = exp(S - m) with S the logits and m their row maximum, y (n) row sums of E, t picks, w (t) weights.
//
// The published loop forms an (n,T) product and solves least squares from scratch at every step. Here rows of the Gram
// matrix G = E^T E are formed once (float32), correlations are h - G[:,sel] w, and the Cholesky factor of the picks'
// own Gram matrix (float64) grows by a row a pick: O(t (T + n + t)) a step, nothing O(n T). Of G there are either the
// rows of picks and of keys that came close to being picked, 24 by a product with the table E whenever a row is
// missing, or, where more than a sixth of the keys is asked for or E would take more than 0.5 GB, all of it, half by
// symmetry. Correlations that lie within G's rounding of the best are computed again in float64 from the columns
// themselves, so picks are those of a float64 loop; where more than 64 do, the best 64 are, and the choice is counted
// (n_cut).
//
// Memory: 4 n (t + keys dropped) bytes for the picks' columns, 16 t^2 for their factor, 4 n T of at most 0.5 GB for E,
// and for G 4 T^2 or 4 T a row that was needed; some (512, T) blocks. T = 12k, n = 50k, t = 1,200: 0.24 + 0.6 GB.
//
// That is the way on the CPU. On a GPU the same picks are found by device_pursuit.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace kvc {

struct PursuitKernels;

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
  std::vector<int64_t> order;  // distinct, in order of selection; fewer than asked where no key is left
  // Of a last solve over all picks, within [lower, upper]. Where picks span one another (as they must when there are
  // more of them than queries), the minimum over that box instead of clamped least squares.
  std::vector<double> weights;
  int64_t n_dropped = 0;    // keys excluded by the drop rule
  int64_t n_cut = 0;        // choices among more keys than are compared in float64
  int64_t n_dependent = 0;  // picks whose column others already span
};

class Pursuit {
 public:
  virtual ~Pursuit() = default;
  // Picks up to `most` keys; the way to fewer is a part of the way to more.
  virtual void run(int64_t most) = 0;
  // What a run for `target` <= most picks alone gives. With the drop rule the way up to `target` is shared and what
  // follows is not. Safe to call from several threads.
  virtual PursuitPicks picks(int64_t target) const = 0;
};

// The way that suits the device. queries (n,d), keys (T,d) on one device, bias (T) float32 or undefined; row_max (n,1),
// row_sum (n,1) float32 over all T. kernels: see DevicePursuits; not for the CPU.
std::unique_ptr<Pursuit> make_pursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                      const at::Tensor& row_max, const at::Tensor& row_sum,
                                      const PursuitSettings& settings, const PursuitKernels* kernels = nullptr);

// How many keys the next iteration picks, and every how many iterations weights are solved for.
struct PursuitSchedule {
  int64_t k_choice, nnls_interval;
};
PursuitSchedule pursuit_schedule(const PursuitSettings& settings, int64_t picked);

class MatchingPursuit final : public Pursuit {
 public:
  // Tensors on the CPU, as make_pursuit() takes them.
  MatchingPursuit(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias, const at::Tensor& row_max,
                  const at::Tensor& row_sum, const PursuitSettings& settings);

  // Forms G (n T^2 flops) or parts of it (2 n T a row).
  void run(int64_t most) override;
  PursuitPicks picks(int64_t target) const override;

 private:
  struct State;
  struct Rows;
  using Column = std::shared_ptr<const std::vector<float>>;
  struct Host {
    at::Tensor scaled_queries, keys, bias, row_max;
  };
  void for_each_block(const std::function<void(const at::Tensor&, int64_t)>& work) const;
  void form_gram();
  bool advance(State& state, int64_t target) const;
  void solve(State& state) const;
  bool explains(const State& state) const;
  void fit_box(State& state) const;
  void add(State& state, int64_t key) const;
  void add(State& state, int64_t key, Column column, double moment, std::vector<double> gram) const;
  std::vector<int64_t> best(State& state, int64_t k, int64_t to_go) const;
  std::vector<double> residual(const State& state) const;
  std::vector<float> column(int64_t key) const;

  PursuitSettings settings_;
  int64_t n_ = 0, source_len_ = 0;
  at::Tensor queries_, keys_, bias_, row_max_;  // float32
  Host host_;                                   // the same on the CPU, queries over sqrt(d)
  std::vector<double> target_;                  // y (n)
  std::shared_ptr<Rows> rows_;                  // of G
  std::vector<double> moment_;                  // h = E^T y (T)
  double largest_moment_ = 0;
  std::shared_ptr<const State> path_;  // of the longest run, without drops
  std::vector<int64_t> iterations_;    // after each of its picks
  std::vector<int64_t> cuts_;          // the same
};

}  // namespace kvc
