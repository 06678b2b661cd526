// Keeps the "heavy hitters", the entries with the most attention over all queries, and the most recent entries; values
// as they were, no bias. Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language
// Models", arXiv:2306.14048.
//
// Score of an entry: mean attention weight over the reference queries. With the queries of context_prefill that is the
// paper's sum over the causal attention matrix: a query sees the template and the entries up to its own position.
//
// Softmax range: all that a query attends to (`softmax_over: text`). `article` is the score of "H2O+" in the comparison
// of arXiv:2602.16284: over the compactable entries alone, without a causal mask; with recent_fraction 0 it is that
// method.
//
// Differences from the paper: it sums attention greedily while tokens are generated and evicts one entry a step; here
// the reference queries are known beforehand, and the cut is made once. recent_fraction 0.5 is the paper's half and
// half; 0 gives pure heavy hitters. The group of a KV head shares one score.
#include <ATen/ATen.h>

#include "methods/parts/heavy_hitters.h"

namespace kvc {
namespace {

class H2o final : public HeavyHitters {
 public:
  explicit H2o(const Options& options) : HeavyHitters(options), recent_fraction_(options.recent_fraction) {}

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    return [problem, scores = scores_once(problem), notes = reach_notes(problem, range_),
            recent_fraction = recent_fraction_](int64_t target_len) {
      HeadFit fit = keep(problem, heavy_and_recent(scores, target_len, recent_fraction));
      fit.notes = notes;
      return fit;
    };
  }

 private:
  double recent_fraction_;
};

KVC_REGISTER_METHOD(H2o, "h2o", "arXiv:2306.14048");

}  // namespace
}  // namespace kvc
