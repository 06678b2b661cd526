#include "methods/parts/scored_keys.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "harness/core/error.h"
#include "methods/parts/key_selection.h"

namespace kvc {

PerHeadMethod::HeadFitter ScoredKeys::prepare(const HeadProblem& problem, int64_t largest_target_len) const {
  const at::Tensor order = best_keys(scores_once(problem), largest_target_len);
  return [problem, order, notes = notes(problem)](int64_t target_len) {
    HeadFit fit = keep(problem, order.narrow(0, 0, target_len));
    fit.notes = notes;
    return fit;
  };
}

at::Tensor ScoredEntries::scores(const HeadProblem& problem) const {
  return score_entries(problem.keys.unsqueeze(0), problem.values.unsqueeze(0), problem)[0];
}

std::vector<at::Tensor> ScoredEntries::score_heads(const std::vector<HeadProblem>& problems) const {
  std::vector<at::Tensor> keys, values;
  for (const HeadProblem& problem : problems) {
    const bool alike = problem.keys.sizes() == problems.front().keys.sizes() &&
                       problem.keys.device() == problems.front().keys.device() &&
                       problem.request == problems.front().request;
    if (!alike) return ScoredKeys::score_heads(problems);
    keys.push_back(problem.keys);
    values.push_back(problem.values);
  }
  if (problems.size() < 2) return ScoredKeys::score_heads(problems);
  return score_entries(at::stack(keys), at::stack(values), problems.front()).unbind(0);
}

at::Tensor window_queries(const HeadProblem& problem, int64_t n_tokens) {
  if (!problem.window_queries) {
    throw Error(ErrorKind::kUsage, "this method needs the last queries of a text, but there is no text", "queries",
                "take a method that scores with all queries, such as h2o or kvzip");
  }
  // Query sources keep all layers on one device; a layer's entries may lie on another.
  return problem.window_queries(n_tokens).to(problem.keys.device());
}

int64_t article_sinks(const HeadProblem& problem, int64_t n_sink) {
  int64_t before = 0;
  if (problem.request != nullptr) {
    before = problem.request->compactable.prefix_len + problem.request->context.first_position;
  }
  return std::clamp<int64_t>(n_sink - before, 0, problem.keys.size(0));
}

at::Tensor with_sinks_first(at::Tensor scores, int64_t n_sink) {
  scores.narrow(-1, 0, std::min(n_sink, scores.size(-1))).fill_(std::numeric_limits<float>::infinity());
  return scores;
}

at::Tensor heavy_and_recent(const at::Tensor& scores, int64_t target_len, double recent_fraction) {
  const int64_t source_len = scores.size(0);
  const auto n_recent = static_cast<int64_t>(static_cast<double>(target_len) * recent_fraction);
  const int64_t n_older = source_len - n_recent;
  const at::Tensor recent = at::arange(n_older, source_len, scores.options().dtype(at::kLong));
  return at::cat({best_keys(scores.narrow(0, 0, n_older), target_len - n_recent), recent});
}

}  // namespace kvc
