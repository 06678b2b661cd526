// Biases and values of kept entries, fitted so that the head answers the reference queries as before (spec A.2, B.3, B.4;
// arXiv:2602.16284).
//
// Letters: T entries, the first t of an order of kept ones, n queries; S logits, E = exp(S - m) with m_i the maximum over all T.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "harness/api/compaction_method.h"
#include "harness/math/least_squares.h"
#include "methods/parts/key_selection.h"

namespace kvc {

struct FitSettings {
  bool fit_bias = true;      // box-constrained fit of the attention mass; false: the old bias stays
  bool fit_values = true;    // least squares on the attention output; false: values are copied
  double bias_bound = 3.0;   // fitted weights stay within exp(-bound) .. exp(bound)
  int64_t nnls_iterations = 2;
};

// Fits any leading part of one order of kept keys. What all targets share (value target, Gram matrix of the mass fit) is
// made once, in the constructor; fit() is const.
class OrderedFit {
 public:
  // order: (t_max) int64, kept entries, best first. `table` is that of the problem's queries over all entries; it may be released
  // afterwards. Holds 12 n t_max bytes.
  OrderedFit(const HeadProblem& problem, const AttentionTable& table, const at::Tensor& order,
             const FitSettings& settings);

  // Keeps the first target_len entries of the order. notes: bias_at_bound, bias_rank_deficient, value_rank_deficient.
  HeadFit fit(int64_t target_len) const;

 private:
  at::Tensor fit_bias(int64_t target_len, HeadFit& fit) const;

  FitSettings settings_;
  at::Tensor order_;         // (t_max)
  at::Tensor keys_, values_;  // (t_max, d) model dtype, of the kept entries
  at::Tensor old_bias_;      // (t_max) float32 or undefined
  at::Tensor logits_;        // (n, t_max) float32, old bias included
  at::Tensor target_output_;  // Y (n, d) float32
  std::shared_ptr<const NormalEquations> mass_;
  std::uint64_t seed_;
};

}  // namespace kvc
