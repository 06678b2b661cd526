// Keeps the entries that a head's queries attend to most while the model reads the context again, helped by what the
// layer's other heads attend to; values as they were, no bias. Akulov et al.,
// "KVCompose: Efficient Structured KV Cache Compression with Composite Tokens", arXiv:2509.05165.
//
//   a_hj    = largest (or mean) attention weight that entry j gets from the queries of query head h
//   s_j     = mean of a_hj over the query heads of the KV head
//   score_j = s_j + mean of s_j over the layer's KV heads
//
// The paper's other half is a budget: layers compete by their composite entries ({budget: adaptive, scope: layers,
// floor_fraction: 0}); scope: all is its unstructured variant.
//
// Follows kvpress (KVComposePress and its defaults). Where the layer's heads hold different numbers of entries (a cache
// compacted before), queries are on-policy or a head comes without its model, the mean over KV heads is left out, and
// the note heads_scored_alone counts that. Queries whose rows do not tell their head (a mix) count as one head's.
#include <ATen/ATen.h>

#include "methods/parts/inner_scores.h"
#include "methods/parts/query_reach.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class KvCompose final : public ScoredKeys {
 public:
  struct Options : SoftmaxRange {
    std::string over_queries = "max";
    bool add_layer_mean = true;
    bool value_norm = false;
    void fields(auto&& visit) {
      visit("over_queries", over_queries, "how weights are reduced over a query head's queries: max or mean",
            one_of({"max", "mean"}));
      visit("add_layer_mean", add_layer_mean, "add the mean score over the layer's KV heads");
      visit("value_norm", value_norm, "scores times the length of the entry's value");
      range_field(visit);
    }
  };
  explicit KvCompose(const Options& options) : options_(options) {}

  std::string published_queries() const override { return "repeat_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    if (!options_.add_layer_mean) return own_scores(problem);
    const LayerHeads layer = heads_of_layer(problem);
    if (layer.alone) return own_scores(problem);
    at::Tensor own, sum;
    for (size_t h = 0; h < layer.heads.size(); ++h) {
      const at::Tensor here = own_scores(layer.heads[h]);
      sum = sum.defined() ? sum + here : here;
      if (h == layer.own) own = here;
    }
    return own + sum / static_cast<double>(layer.heads.size());
  }

 protected:
  Json notes(const HeadProblem& problem) const override {
    Json notes = reach_notes(problem, options_.range());
    if (options_.add_layer_mean && heads_of_layer(problem).alone) notes["heads_scored_alone"] = 1;
    return notes;
  }

 private:
  at::Tensor own_scores(const HeadProblem& problem) const {
    const KeyScore reduction = options_.over_queries == "max" ? KeyScore::kMax : KeyScore::kMean;
    const at::Tensor scores = scores_by_query_head(problem, options_.range(), reduction).mean(0);
    return options_.value_norm ? scores * problem.values.to(at::kFloat).norm(2, 1) : scores;
  }

  Options options_;
};

KVC_REGISTER_METHOD(KvCompose, "kvcompose", "arXiv:2509.05165");

}  // namespace
}  // namespace kvc
