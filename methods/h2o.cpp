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

#include "harness/api/published_queries.h"
#include "methods/parts/query_reach.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class H2o final : public PerHeadMethod, public PublishedQueries {
 public:
  struct Options : SoftmaxRange {
    double recent_fraction = 0.5;
    void fields(auto&& visit) {
      visit("recent_fraction", recent_fraction,
            "fraction of the kept entries reserved for the most recent ones, 0 to 1");
      range_field(visit);
    }
    void check(const OptionCheck& fail) const {
      if (!(recent_fraction >= 0 && recent_fraction <= 1)) fail("recent_fraction", "is out of range", "0 to 1");
      check_range(fail);
    }
  };
  explicit H2o(const Options& options) : options_(options) {}

  bool needs_queries() const override { return true; }
  std::string published_queries() const override { return "context_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    return attention_scores(problem, options_.range(), KeyScore::kMean);
  }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    return [problem, scores = scores_once(problem), notes = reach_notes(problem, options_.range()),
            recent_fraction = options_.recent_fraction](int64_t target_len) {
      HeadFit fit = keep(problem, heavy_and_recent(scores, target_len, recent_fraction));
      fit.notes = notes;
      return fit;
    };
  }

 private:
  Options options_;
};

KVC_REGISTER_METHOD(H2o, "h2o", "arXiv:2306.14048");

}  // namespace
}  // namespace kvc
