// Keeps the entries that some query attends to most while the model repeats the context; values as they were, no bias.
// Kim et al., "KVzip: Query-Agnostic KV Cache Compression with Context Reconstruction", arXiv:2505.23416.
//
// Score of an entry: the largest attention weight it gets from any query of any query head of its KV head. It is meant
// for the queries of repeat_prefill. A uniform budget gives the paper's uniform variant; a budget shared by score over
// all layers (scope: all, no floor) is the paper's own, where heads keep what scores best in the whole cache.
//
// Softmax range: as in the paper, everything a repeating query attends to: template, context, and the repeated text up
// to itself. `softmax_over: article` renormalises over the compactable entries alone (as the comparison in
// arXiv:2602.16284 does); then a head that looks at the template counts as much as one that reads, and the free
// competition of heads suffers.
//
// `output_weighted: true` is KVzip+ (kvpress: kvzip_plus_normalization): an attention weight counts by what it moves,
//   score_j = max over query heads h and queries i of A_hij |W_o,h v_j|_2 / |x_i|_2
// with x_i the normed hidden state that query i is projected from. It needs queries that know theirs, those of a text
// read off-policy.
//
// Difference from the paper: it repeats the context in chunks of 2,000 tokens, each scored against its own chunk; here
// the whole context is repeated at once (the method `chunked` cuts it).
#include <ATen/ATen.h>

#include "harness/core/error.h"
#include "methods/parts/output_norms.h"
#include "methods/parts/query_reach.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class KvZip final : public ScoredKeys {
 public:
  struct Options : SoftmaxRange {
    bool output_weighted = false;
    void fields(auto&& visit) {
      range_field(visit);
      visit("output_weighted", output_weighted, "KVzip+: weights scaled by output norm over the query's input norm");
    }
  };
  explicit KvZip(const Options& options) : options_(options) {}

  std::string published_queries() const override { return "repeat_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    if (!options_.output_weighted) return attention_scores(problem, options_.range(), KeyScore::kMax);
    const at::Tensor written = output_norms(problem, 2, "kvzip with output_weighted");
    const at::Tensor inputs = problem.request->queries->input_norms(problem.layer);
    if (!inputs.defined() || query_heads(problem) != written.size(0)) {
      throw Error(ErrorKind::kUsage, "kvzip with output_weighted needs the hidden states behind its queries", "queries",
                  "take repeat_prefill, off-policy");
    }
    constexpr double kTiny = 1e-20;
    const at::Tensor by_head =
        scores_by_query_head(problem, options_.range(), KeyScore::kMax, inputs.clamp_min(kTiny).reciprocal());
    return (by_head * written).amax(0);
  }
  std::vector<at::Tensor> score_heads(const std::vector<HeadProblem>& problems) const override {
    if (options_.output_weighted) return PerHeadMethod::score_heads(problems);
    return attention_scores(problems, options_.range(), KeyScore::kMax);
  }

 protected:
  Json notes(const HeadProblem& problem) const override { return reach_notes(problem, options_.range()); }

 private:
  Options options_;
};

KVC_REGISTER_METHOD(KvZip, "kvzip", "arXiv:2505.23416");

}  // namespace
}  // namespace kvc
