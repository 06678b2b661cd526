// Biases and values of kept entries, fitted so that the head answers the reference queries as before (arXiv:2602.16284,
// Algorithm 3 and its least squares on values).
//
// Letters: T entries, the first t of an order of kept ones, n queries; S logits, E = exp(S - m) with m_i the maximum
// over all T.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/api/compaction_method.h"
#include "harness/math/least_squares.h"
#include "methods/parts/key_selection.h"

namespace kvc {

enum class BiasFit : std::uint8_t {
  kNone,       // the old bias stays
  kNnls,       // box-constrained fit of the attention mass: clamped least squares and some projected-gradient steps
  kActiveSet,  // the same, to its minimum
};
enum class ValueFit : std::uint8_t {
  kCopy,          // the values of the kept entries
  kLeastSquares,  // least squares on the attention output
  kRidge,         // the same with a penalty
};

struct FitSettings {
  BiasFit bias = BiasFit::kNnls;
  ValueFit values = ValueFit::kLeastSquares;
  double bias_bound = 3.0;  // fitted weights stay within exp(-bound) .. exp(bound)
  int64_t nnls_iterations = 2;
  double ridge = 0;
  RidgeScale ridge_scale = RidgeScale::kSpectral;

  bool fit_values() const { return values != ValueFit::kCopy; }
};

// Fits any leading part of one order of kept keys. A fit depends on its own t alone, to the last bit: it works on
// tensors made for that t, not on parts of larger ones, whose products may round otherwise.
class OrderedFit {
 public:
  // order: (t_max) int64, kept entries, best first. `attention` is that of the problem's queries over all its entries,
  // with the output over its values when values are to be fitted. Shares the tensors of all three.
  OrderedFit(const HeadProblem& problem, const AttentionSummary& attention, const at::Tensor& order,
             const FitSettings& settings);

  // Keeps the first target_len entries of the order. `log_weights` (target_len) float32, where given, are the fitted ln
  // w instead of a fit of their own. notes: bias_at_bound, bias_rank_deficient, value_rank_deficient. About 4 n t bytes
  // at a time. Safe to call from several threads.
  HeadFit fit(int64_t target_len, const at::Tensor& log_weights = {}) const;

 private:
  at::Tensor fit_weights(const at::Tensor& table, HeadFit& fit) const;

  FitSettings settings_;
  HeadProblem problem_;
  AttentionSummary attention_;
  at::Tensor order_;  // (t_max)
};

}  // namespace kvc
