// The shape that most evictions share: every entry has a score, the entries of highest score are kept as they are.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/api/compaction_method.h"

namespace kvc {

// scores() says everything; equal scores are decided by position, the lower one first. Keys, values and old bias of
// what is kept are copied. A head with another length keeps another leading part of the same order.
class ScoredKeys : public PerHeadMethod {
 public:
  at::Tensor scores(const HeadProblem& problem) const override = 0;

 protected:
  // Numbers for every fit of the head; summed over heads in the record.
  virtual Json notes(const HeadProblem& /*problem*/) const { return Json::object(); }
  HeadFitter prepare(const HeadProblem& problem, int64_t largest_target_len) const override;
};

// The same of scores by keys and values alone, which are of a layer's heads at once where these are of one length.
class ScoredEntries : public ScoredKeys {
 public:
  at::Tensor scores(const HeadProblem& problem) const final;
  std::vector<at::Tensor> score_heads(const std::vector<HeadProblem>& problems) const final;

 protected:
  // keys, values (H,T,d) of heads of one request, `any` being one of them: (H,T) float32.
  virtual at::Tensor score_entries(const at::Tensor& keys, const at::Tensor& values, const HeadProblem& any) const = 0;
};

// Queries of the last n_tokens tokens of the text that the query source reads, (g * n_tokens, d). Throws Error(kUsage)
// when the head comes without a text.
at::Tensor window_queries(const HeadProblem& problem, int64_t n_tokens);

// How many of the head's entries are among the first n_sink of the whole text: the template in front of the article
// counts, and is kept anyway. A head without a request begins with the text.
int64_t article_sinks(const HeadProblem& problem, int64_t n_sink);

// Scores (..., T) whose first n_sink entries (or all there are) come before all others.
at::Tensor with_sinks_first(at::Tensor scores, int64_t n_sink);

// Heavy hitters as in H2O, arXiv:2306.14048: floor(recent_fraction * t) last entries, and of the others those of
// highest score, the lower index first among equals. (t) int64.
at::Tensor heavy_and_recent(const at::Tensor& scores, int64_t target_len, double recent_fraction);

}  // namespace kvc
