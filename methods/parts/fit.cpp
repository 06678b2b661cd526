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
  const BoxedFit weights = mass.fit_box(logits.size(1), box);
  fit.notes["bias_at_bound"] = weights.n_at_lower + weights.n_at_upper;
  fit.notes["bias_rank_deficient"] = weights.solver == LeastSquaresSolver::kEigenvectors ? 1 : 0;
  return weights.solution.log();
}

HeadFit OrderedFit::fit(int64_t target_len) const {
  HeadFit fit;
  fit.indices = order_.narrow(0, 0, target_len);
  fit.keys = problem_.keys.index_select(0, fit.indices);
  if (problem_.bias.defined()) fit.bias = problem_.bias.index_select(0, fit.indices);
  at::Tensor logits;
  if (settings_.fit_bias || settings_.fit_values) logits = attention_logits(problem_.queries, fit.keys, fit.bias);
  if (settings_.fit_bias) {
    // w multiplies an entry that already carries exp(old bias).
    const at::Tensor log_weights = fit_log_weights(logits, fit);
    fit.bias = fit.bias.defined() ? fit.bias + log_weights : log_weights;
    logits.add_(log_weights);
  }
  if (!settings_.fit_values) {
    fit.values = problem_.values.index_select(0, fit.indices);
    return fit;
  }
  const LeastSquares values = least_squares(at::softmax(logits, 1), attention_.output);
  fit.values = values.solution.to(problem_.values.scalar_type());
  fit.notes["value_rank_deficient"] = values.solver == LeastSquaresSolver::kEigenvectors ? 1 : 0;
  return fit;
}

}  // namespace kvc
