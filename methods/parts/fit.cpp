#include "methods/parts/fit.h"

#include <ATen/ATen.h>

#include <cmath>

#include "harness/math/attention.h"
#include "harness/math/least_squares.h"

namespace kvc {
namespace {

// From the table E of the kept entries to attention over them, softmax(S + ln w) = E w / sum_j E_ij w_j, in place.
// False, and nothing done, where what is kept has so little of a query's mass that E is close to underflow.
bool reweight(const at::Tensor& table, const at::Tensor& w) {
  constexpr float kLeastMass = 1e-25F;
  const at::Tensor sums = at::mv(table, w);
  if (sums.numel() > 0 && !(sums.min().item<float>() >= kLeastMass)) return false;
  table.mul_(w).div_(sums.unsqueeze(1));
  return true;
}

}  // namespace

OrderedFit::OrderedFit(const HeadProblem& problem, const AttentionSummary& attention, const at::Tensor& order,
                       const FitSettings& settings)
    : settings_(settings), problem_(problem), attention_(attention), order_(order) {}

// w of the kept entries with the table E[:, kept] (n,t).
at::Tensor OrderedFit::fit_weights(const at::Tensor& table, HeadFit& fit) const {
  const NormalEquations mass(table, attention_.row_sum.squeeze(1));
  BoxSettings box;
  box.lower = std::exp(-settings_.bias_bound);
  box.upper = std::exp(settings_.bias_bound);
  box.iterations = settings_.nnls_iterations;
  const bool converge = settings_.bias == BiasFit::kActiveSet;
  const BoxedFit weights = converge ? mass.fit_active_set(table.size(1), box) : mass.fit_box(table.size(1), box);
  if (converge) fit.notes["bias_not_converged"] = weights.converged ? 0 : 1;
  fit.notes["bias_at_bound"] = weights.n_at_lower + weights.n_at_upper;
  fit.notes["bias_rank_deficient"] = weights.solver == LeastSquaresSolver::kEigenvectors ? 1 : 0;
  return weights.solution;
}

HeadFit OrderedFit::fit(int64_t target_len, const at::Tensor& log_weights) const {
  HeadFit fit;
  fit.indices = order_.narrow(0, 0, target_len);
  fit.keys = problem_.keys.index_select(0, fit.indices);
  if (problem_.bias.defined()) fit.bias = problem_.bias.index_select(0, fit.indices);
  const bool fit_bias = settings_.bias != BiasFit::kNone && !log_weights.defined();
  at::Tensor table, weights;
  if (fit_bias) {
    // The shift is the maximum over ALL entries: another one would weight the queries differently and give other
    // biases.
    table = attention_logits(problem_.queries, fit.keys, fit.bias).sub_(attention_.row_max).exp_();
    weights = fit_weights(table, fit);
  }
  if (fit_bias || log_weights.defined()) {
    // w multiplies an entry that already carries exp(old bias).
    const at::Tensor added = fit_bias ? weights.log() : log_weights;
    fit.bias = fit.bias.defined() ? fit.bias + added : added;
  }
  if (!settings_.fit_values()) {
    fit.values = problem_.values.index_select(0, fit.indices);
    return fit;
  }
  const at::Tensor attention = fit_bias && reweight(table, weights)
                                   ? table
                                   : at::softmax(attention_logits(problem_.queries, fit.keys, fit.bias), 1);
  const LeastSquares values = settings_.values == ValueFit::kRidge
                                  ? ridge(attention, attention_.output, settings_.ridge, settings_.ridge_scale)
                                  : least_squares(attention, attention_.output);
  fit.values = values.solution.to(problem_.values.scalar_type());
  fit.notes["value_rank_deficient"] = values.rank < target_len ? 1 : 0;
  return fit;
}

}  // namespace kvc
