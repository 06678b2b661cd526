#include "methods/parts/inner_scores.h"

#include <ATen/ATen.h>

#include <algorithm>
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

std::vector<at::Tensor> InnerScores::of(const std::vector<HeadProblem>& problems) const {
  std::vector<HeadProblem> heads = problems;
  for (HeadProblem& head : heads) head.scores = at::Tensor();  // those of the outer method
  std::vector<at::Tensor> scores = method_->score_heads(heads);
  if (std::all_of(scores.begin(), scores.end(), [](const at::Tensor& own) { return own.defined(); })) return scores;
  throw Error(ErrorKind::kUsage, "method '" + name_ + "' has no scores", "method",
              "take a method that scores its entries, e.g. snapkv");
}

HeadFit InnerScores::fit(const HeadProblem& problem, int64_t target_len) const {
  return method_->fit(problem, {target_len}).front();
}

at::Tensor InnerScores::of_layer(const HeadProblem& problem) const {
  return at::stack(of(heads_of_layer(problem).heads));
}

HeadProblem head_of(const CompactionRequest& request, int64_t layer_index, int64_t kv_head, bool with_queries) {
  const LayerKv& layer = request.cache.layer(layer_index);
  const HeadEntries entries = layer.head(kv_head).slice(request.compactable.prefix_len,
                                                        request.compactable.source_len(layer.head_len(kv_head)));
  HeadProblem head;
  head.keys = entries.keys;
  head.values = entries.values;
  head.bias = entries.bias;
  head.layer = layer_index;
  head.kv_head = kv_head;
  head.request = &request;
  if (with_queries && request.queries != nullptr) {
    head.queries = request.queries->layer(layer_index, nullptr).select(0, kv_head).to(head.keys.device());
    head.window_queries = [queries = request.queries, layer_index, kv_head](int64_t n_tokens) {
      return queries->window(layer_index, n_tokens).select(0, kv_head);
    };
  }
  return head;
}

HeadProblem sibling(const HeadProblem& problem, int64_t kv_head) {
  HeadProblem other = head_of(*problem.request, problem.layer, kv_head, problem.queries.defined());
  other.seed = problem.seed;
  return other;
}

LayerHeads heads_of_layer(const HeadProblem& problem) {
  LayerHeads alone{{problem}, 0, problem.request != nullptr && problem.request->cache.n_kv_heads() > 1};
  if (problem.request == nullptr) return alone;
  const LayerQueries* queries = problem.request->queries;
  if (queries != nullptr && problem.queries.defined() && queries->on_policy()) return alone;
  const LayerKv& layer = problem.request->cache.layer(problem.layer);
  LayerHeads all;
  for (int64_t head = 0; head < layer.n_kv_heads(); ++head) {
    if (layer.head_len(head) != layer.head_len(problem.kv_head)) return alone;
    all.heads.push_back(head == problem.kv_head ? problem : sibling(problem, head));
  }
  all.own = static_cast<size_t>(problem.kv_head);
  return all;
}

}  // namespace kvc
