#include "methods/parts/fit.h"

#include <ATen/ATen.h>

#include <cmath>

#include "harness/math/attention.h"

namespace kvc {

OrderedFit::OrderedFit(const HeadProblem& problem, const AttentionTable& table, const at::Tensor& order,
                       const FitSettings& settings)
    : settings_(settings),
      order_(order),
      keys_(problem.keys.index_select(0, order)),
      values_(problem.values.index_select(0, order)),
      seed_(problem.seed) {
  if (problem.bias.defined()) old_bias_ = problem.bias.index_select(0, order);
  if (settings.fit_bias || settings.fit_values) logits_ = attention_logits(problem.queries, keys_, old_bias_);
  if (settings.fit_values) {
    target_output_ = at::mm(table.exp_logits, problem.values.to(at::kFloat)).div_(table.row_sum);
  }
  if (settings.fit_bias) {
    // The shift is the maximum over ALL entries: another one would weight the queries differently and give other biases.
    mass_ = std::make_shared<NormalEquations>((logits_ - table.row_max).exp_(), table.row_sum.squeeze(1));
  }
}

// ln w on top of the old bias: w multiplies an entry that already carries exp(old bias).
at::Tensor OrderedFit::fit_bias(int64_t target_len, HeadFit& fit) const {
  BoxSettings box;
  box.lower = std::exp(-settings_.bias_bound);
  box.upper = std::exp(settings_.bias_bound);
  box.iterations = settings_.nnls_iterations;
  box.seed = seed_;
  const BoxedFit weights = mass_->fit_box(target_len, box);
  fit.notes["bias_at_bound"] = weights.n_at_lower + weights.n_at_upper;
  fit.notes["bias_rank_deficient"] = weights.solver == LeastSquaresSolver::kEigenvectors ? 1 : 0;
  return weights.solution.log();
}

HeadFit OrderedFit::fit(int64_t target_len) const {
  HeadFit fit;
  fit.indices = order_.narrow(0, 0, target_len);
  fit.keys = keys_.narrow(0, 0, target_len);
  if (old_bias_.defined()) fit.bias = old_bias_.narrow(0, 0, target_len);
  at::Tensor log_weights;
  if (settings_.fit_bias) {
    log_weights = fit_bias(target_len, fit);
    fit.bias = fit.bias.defined() ? fit.bias + log_weights : log_weights;
  }
  if (!settings_.fit_values) {
    fit.values = values_.narrow(0, 0, target_len);
    return fit;
  }
  // logits_ carry the old bias already.
  const at::Tensor logits = logits_.narrow(1, 0, target_len);
  const at::Tensor weights = at::softmax(log_weights.defined() ? logits + log_weights : logits, 1);
  const LeastSquares values = least_squares(weights, target_output_);
  fit.values = values.solution.to(values_.scalar_type());
  fit.notes["value_rank_deficient"] = values.solver == LeastSquaresSolver::kEigenvectors ? 1 : 0;
  return fit;
}

}  // namespace kvc
