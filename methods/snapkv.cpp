// Keeps the entries to which a window of last queries attends most, smoothed over neighbouring positions; values as
// they were, no bias. Li et al., "SnapKV: LLM Knows What You are Looking for Before Generation", arXiv:2404.14469.
//
// Score of an entry: mean attention weight over the window's queries of all query heads of its KV head, then pooled
// over positions. Max pooling gives runs of equal scores; the lower index is taken first.
//
// Softmax range: as in the paper, all that a query attends to: template, entries up to its own position, and the tokens
// of its own text up to itself. `softmax_over: article` renormalises over the compactable entries, without a mask.
//
// Differences from the paper: its window is the end of the prompt itself, whose entries are kept beside the t chosen
// ones. Here the window is the end of whatever text the query source reads (the question template, a repetition of the
// article), which is mostly no part of the compactable span; so no entry is kept for being in the window, and t counts
// everything that is kept. The paper scores per query head; entries here belong to KV heads, so a group shares one
// score. PyramidKV (arXiv:2406.02069) is this score with a budget that shrinks from layer to layer.
#include <ATen/ATen.h>

#include "methods/parts/query_reach.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class SnapKv final : public ScoredKeys {
 public:
  struct Options : SoftmaxRange, QueryWindow {
    Options() : QueryWindow{64, 7} {}
    std::string pool = "max";
    void fields(auto&& visit) {
      window_fields(visit);
      visit("pool", pool, "max or avg (avg counts the padding at both ends as zeros)", one_of({"max", "avg"}));
      range_field(visit);
    }
  };
  explicit SnapKv(const Options& options) : options_(options) {}

  std::string published_queries() const override { return "context_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    return pooled(window_attention_scores(problem, options_.window, options_.range(), KeyScore::kMean));
  }
  std::vector<at::Tensor> score_heads(const std::vector<HeadProblem>& problems) const override {
    std::vector<at::Tensor> all = window_attention_scores(problems, options_.window, options_.range(), KeyScore::kMean);
    for (at::Tensor& own : all) own = pooled(own);
    return all;
  }

 protected:
  Json notes(const HeadProblem& problem) const override { return reach_notes(problem, options_.range()); }

 private:
  at::Tensor pooled(const at::Tensor& scores) const {
    if (options_.kernel == 1) return scores;
    const at::Tensor line = scores.view({1, 1, -1});
    const int64_t padding = options_.kernel / 2;
    const at::Tensor smooth = options_.pool == "max" ? at::max_pool1d(line, {options_.kernel}, {1}, {padding})
                                                     : at::avg_pool1d(line, {options_.kernel}, {1}, {padding});
    return smooth.flatten();
  }

  Options options_;
};

KVC_REGISTER_METHOD(SnapKv, "snapkv", "arXiv:2404.14469");

}  // namespace
}  // namespace kvc
