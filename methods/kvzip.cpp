// Keeps the entries that some query attends to most while the model repeats the context; values as they were, no bias.
// Kim et al., "KVzip: Query-Agnostic KV Cache Compression with Context Reconstruction", arXiv:2505.23416.
//
// Score of an entry: the largest attention weight it gets from any query of any query head of its KV head. It is meant
// for the queries of repeat_prefill. A uniform budget gives the paper's uniform variant; a budget shared by score over
// all layers (scope: all, no floor) is the paper's own, where heads keep what scores best in the whole cache.
//
// Differences from the paper: it repeats the context in chunks of 2,000 tokens, each scored against its own chunk, and
// its softmax runs over the chunk's keys and those of the repeated text; here it runs over all compactable entries and
// nothing else, as for every method of this harness (the comparison in arXiv:2602.16284 does the same).
#include <ATen/ATen.h>

#include "methods/parts/key_selection.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class KvZip final : public ScoredKeys {
 public:
  using Options = NoOptions;
  explicit KvZip(const Options& /*options*/) {}

  bool needs_queries() const override { return true; }

  at::Tensor scores(const HeadProblem& problem) const override {
    return summarize_attention(problem.queries, problem.keys, problem.bias, KeyScore::kMax).scores;
  }
};

KVC_REGISTER_METHOD(KvZip, "kvzip", "arXiv:2505.23416");

}  // namespace
}  // namespace kvc
