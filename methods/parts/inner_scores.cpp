#include "methods/parts/inner_scores.h"

#include <ATen/ATen.h>

#include <vector>

#include "harness/api/nested_method.h"
#include "harness/core/error.h"

namespace kvc {

void InnerScores::complete(Json& value, const std::string& outer, const std::string& pointer, Problems& problems) {
  if (refuse_itself(value, outer, pointer, problems)) return;
  if (!complete_nested<CompactionMethod>(value, "method", pointer, problems)) return;
  const auto made = create_nested<CompactionMethod>(value);
  if (dynamic_cast<const PerHeadMethod*>(made.get()) != nullptr) return;
  problems.add("method '" + value.at("name").get<std::string>() + "' scores no entries", pointer,
               "take one that does, e.g. snapkv");
}

InnerScores::InnerScores(const Json& value)
    : name_(value.at("name").get<std::string>()),
      made_(create_nested<CompactionMethod>(value)),
      method_(dynamic_cast<const PerHeadMethod*>(made_.get())) {}

at::Tensor InnerScores::of(const HeadProblem& problem) const {
  HeadProblem head = problem;
  head.scores = at::Tensor();  // those of the outer method
  at::Tensor scores = method_->scores(head);
  if (scores.defined()) return scores;
  throw Error(ErrorKind::kUsage, "method '" + name_ + "' has no scores", "method",
              "take a method that scores its entries, e.g. snapkv");
}

at::Tensor InnerScores::of_layer(const HeadProblem& problem) const {
  if (problem.request == nullptr) return of(problem).unsqueeze(0);
  const LayerQueries* queries = problem.request->queries;
  if (queries != nullptr && queries->on_policy()) return of(problem).unsqueeze(0);
  const LayerKv& layer = problem.request->cache.layer(problem.layer);
  std::vector<at::Tensor> rows;
  for (int64_t head = 0; head < layer.n_kv_heads(); ++head) {
    if (layer.head_len(head) != layer.head_len(problem.kv_head)) return of(problem).unsqueeze(0);
    rows.push_back(of(sibling(problem, head)));
  }
  return at::stack(rows);
}

HeadProblem sibling(const HeadProblem& problem, int64_t kv_head) {
  const CompactionRequest& request = *problem.request;
  const LayerKv& layer = request.cache.layer(problem.layer);
  const int64_t first = request.compactable.prefix_len;
  const int64_t length = request.compactable.source_len(layer.head_len(kv_head));
  HeadProblem other = problem;
  other.kv_head = kv_head;
  other.keys = layer.head_keys(kv_head).narrow(0, first, length);
  other.values = layer.head_values(kv_head).narrow(0, first, length);
  other.bias = layer.bias.defined() ? layer.head_bias(kv_head).narrow(0, first, length) : at::Tensor();
  if (problem.queries.defined() && kv_head != problem.kv_head) {
    other.queries = request.queries->layer(problem.layer, nullptr).select(0, kv_head);
  }
  other.window_queries = [queries = request.queries, layer = problem.layer, kv_head](int64_t n_tokens) {
    return queries->window(layer, n_tokens).select(0, kv_head);
  };
  return other;
}

}  // namespace kvc
