#include "methods/parts/fit.h"

#include <ATen/ATen.h>

#include <cmath>

#include "harness/math/attention.h"
#include "harness/math/least_squares.h"

namespace kvc {

OrderedFit::OrderedFit(const HeadProblem& problem, const AttentionSummary& attention, const at::Tensor& order,
                       const FitSettings& settings)
    : settings_(settings), problem_(problem), attention_(attention), order_(order) {}

// ln w of the kept entries with logits (n,t).
at::Tensor OrderedFit::fit_log_weights(const at::Tensor& logits, HeadFit& fit) const {
  // The shift is the maximum over ALL entries: another one would weight the queries differently and give other biases.
  const NormalEquations mass((logits - attention_.row_max).exp_(), attention_.row_sum.squeeze(1));
  BoxSettings box;
  box.lower = std::exp(-settings_.bias_bound);
  box.upper = std::exp(settings_.bias_bound);
  box.iterations = settings_.nnls_iterations;
  box.seed = problem_.seed;
  const bool converge = settings_.bias == BiasFit::kActiveSet;
  const BoxedFit weights = converge ? mass.fit_active_set(logits.size(1), box) : mass.fit_box(logits.size(1), box);
  if (converge) fit.notes["bias_not_converged"] = weights.converged ? 0 : 1;
  fit.notes["bias_at_bound"] = weights.n_at_lower + weights.n_at_upper;
  fit.notes["bias_rank_deficient"] = weights.solver == LeastSquaresSolver::kEigenvectors ? 1 : 0;
  return weights.solution.log();
}

HeadFit OrderedFit::fit(int64_t target_len, const at::Tensor& log_weights) const {
  HeadFit fit;
  fit.indices = order_.narrow(0, 0, target_len);
  fit.keys = problem_.keys.index_select(0, fit.indices);
  if (problem_.bias.defined()) fit.bias = problem_.bias.index_select(0, fit.indices);
  const bool given = log_weights.defined();
  const bool fit_bias = settings_.bias != BiasFit::kNone && !given;
  at::Tensor logits;
  if (fit_bias || settings_.fit_values()) logits = attention_logits(problem_.queries, fit.keys, fit.bias);
  if (fit_bias || given) {
    // w multiplies an entry that already carries exp(old bias).
    const at::Tensor added = given ? log_weights : fit_log_weights(logits, fit);
    fit.bias = fit.bias.defined() ? fit.bias + added : added;
    if (logits.defined()) logits.add_(added);
  }
  if (!settings_.fit_values()) {
    fit.values = problem_.values.index_select(0, fit.indices);
    return fit;
  }
  const at::Tensor weights = at::softmax(logits, 1);
  const LeastSquares values = settings_.values == ValueFit::kRidge
                                  ? ridge(weights, attention_.output, settings_.ridge, settings_.ridge_scale)
                                  : least_squares(weights, attention_.output);
  fit.values = values.solution.to(problem_.values.scalar_type());
  fit.notes["value_rank_deficient"] = values.solver == LeastSquaresSolver::kEigenvectors ? 1 : 0;
  return fit;
}

}  // namespace kvc
