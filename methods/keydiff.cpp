// Keeps the keys that differ most from the average one, values as they were, no bias; needs no queries. Park et al.,
// "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained
// Environments", arXiv:2504.15364.
//
//   anchor = mean_j k_j / |k_j|        score_i = -cos(k_i, anchor)
//
// Differences from the paper: it reads the prompt block by block and evicts after each; here the whole context is known
// and cut once. Keys are those of the cache, rotated, as in the paper's code. An old bias plays no part in the score.
#include <ATen/ATen.h>

#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class KeyDiff final : public ScoredKeys {
 public:
  using Options = NoOptions;
  explicit KeyDiff(const Options& /*options*/) {}

  bool needs_queries() const override { return false; }

  at::Tensor scores(const HeadProblem& problem) const override {
    constexpr double kTiny = 1e-12;  // a key or an anchor of zeros has cosine 0 with everything
    const at::Tensor keys = problem.keys.to(at::kFloat);
    const at::Tensor directions = keys.div(keys.norm(2, 1, /*keepdim=*/true).clamp_min(kTiny));
    const at::Tensor anchor = directions.mean(0);
    return at::mv(directions, anchor.div(anchor.norm().clamp_min(kTiny))).neg_();
  }
};

KVC_REGISTER_METHOD(KeyDiff, "keydiff", "arXiv:2504.15364");

}  // namespace
}  // namespace kvc
