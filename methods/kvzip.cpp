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
// Difference from the paper: it repeats the context in chunks of 2,000 tokens, each scored against its own chunk; here
// the whole context is repeated at once (the method `chunked` cuts it).
#include <ATen/ATen.h>

#include "methods/parts/query_reach.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class KvZip final : public ScoredKeys {
 public:
  struct Options : SoftmaxRange {
    void fields(auto&& visit) { range_field(visit); }
    void check(const OptionCheck& fail) const { check_range(fail); }
  };
  explicit KvZip(const Options& options) : options_(options) {}

  bool needs_queries() const override { return true; }

  at::Tensor scores(const HeadProblem& problem) const override {
    return attention_scores(problem, options_.range(), KeyScore::kMax);
  }

 protected:
  Json notes(const HeadProblem& problem) const override { return reach_notes(problem, options_.range()); }

 private:
  Options options_;
};

KVC_REGISTER_METHOD(KvZip, "kvzip", "arXiv:2505.23416");

}  // namespace
}  // namespace kvc
