// What methods share that keep heavy hitters and recent entries, H2O (arXiv:2306.14048) and those that merge what it
// evicts: scores are mean attention weights over the reference queries.
#pragma once

#include <vector>

#include "methods/parts/query_reach.h"
#include "methods/parts/scored_keys.h"

namespace kvc {

class HeavyHitters : public PerHeadMethod {
 public:
  struct Options : SoftmaxRange {
    double recent_fraction = 0.5;
    void fields(auto&& visit) {
      visit("recent_fraction", recent_fraction,
            "fraction of the kept entries reserved for the most recent ones, 0 to 1", between(0, 1));
      range_field(visit);
    }
  };

  std::string published_queries() const override { return "context_prefill"; }
  at::Tensor scores(const HeadProblem& problem) const override {
    return attention_scores(problem, range_, KeyScore::kMean);
  }
  std::vector<at::Tensor> score_heads(const std::vector<HeadProblem>& problems) const override {
    return attention_scores(problems, range_, KeyScore::kMean);
  }

 protected:
  explicit HeavyHitters(const SoftmaxRange& options) : range_(options.range()) {}

  SoftmaxOver range_;
};

}  // namespace kvc
