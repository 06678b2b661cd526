// Keeps the "heavy hitters", the entries with the most attention over all queries, and the most recent entries; values
// as they were, no bias. Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language
// Models", arXiv:2306.14048.
//
// Differences from the paper: it sums attention greedily while tokens are generated and evicts one entry a step; here
// the score is the mean attention of the reference queries, known beforehand, and the cut is made once. recent_fraction
// 0.5 is the paper's half and half; 0 gives pure heavy hitters ("H2O+" in the comparison of arXiv:2602.16284). The
// group of a KV head shares one score.
#include <ATen/ATen.h>

#include "harness/api/published_queries.h"
#include "methods/parts/key_selection.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class H2o final : public PerHeadMethod, public PublishedQueries {
 public:
  struct Options {
    double recent_fraction = 0.5;
    void fields(auto&& visit) {
      visit("recent_fraction", recent_fraction, "part of the kept entries that are the most recent ones, 0 to 1");
    }
    void check(const OptionCheck& fail) const {
      if (!(recent_fraction >= 0 && recent_fraction <= 1)) fail("recent_fraction", "is out of range", "0 to 1");
    }
  };
  explicit H2o(const Options& options) : options_(options) {}

  bool needs_queries() const override { return true; }
  std::string published_queries() const override { return "context_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    return summarize_attention(problem.queries, problem.keys, problem.bias, KeyScore::kMean).scores;
  }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    return [problem, scores = scores_once(problem), recent_fraction = options_.recent_fraction](int64_t target_len) {
      return keep(problem, heavy_and_recent(scores, target_len, recent_fraction));
    };
  }

 private:
  Options options_;
};

KVC_REGISTER_METHOD(H2o, "h2o", "arXiv:2306.14048");

}  // namespace
}  // namespace kvc
