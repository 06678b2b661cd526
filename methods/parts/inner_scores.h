// Another method's scores, for methods that choose by them in a way of their own.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "harness/api/compaction_method.h"

namespace kvc {

class InnerScores {
 public:
  // Fills in the options of {method: NAME, option: value}; what is wrong becomes a problem at `pointer`. Queries and
  // budget are those of the outer method.
  static void complete(Json& value, const std::string& outer, const std::string& pointer, Problems& problems);
  // Of a value that complete() has filled in.
  explicit InnerScores(const Json& value);

  bool needs_queries() const { return method_->needs_queries(); }
  std::string published_queries() const { return method_->published_queries(); }
  // (T) float32. Throws Error(kUsage) when the method has no scores.
  at::Tensor of(const HeadProblem& problem) const { return of(std::vector{problem}).front(); }
  // Of several heads, as PerHeadMethod::score_heads().
  std::vector<at::Tensor> of(const std::vector<HeadProblem>& problems) const;
  // What the method itself makes of the head at one target.
  HeadFit fit(const HeadProblem& problem, int64_t target_len) const;
  // Of all KV heads of the head's layer, which must hold the same entries: (Hkv, T). One row, the head's own, where
  // they do not, where queries are on-policy (a head at a time) or the head comes without a model.
  at::Tensor of_layer(const HeadProblem& problem) const;

 private:
  std::string name_;
  std::unique_ptr<CompactionMethod> made_;
  const PerHeadMethod* method_;
};

// A head of the request with its own keys, values and bias, and queries (off-policy) where asked for; seed 0.
HeadProblem head_of(const CompactionRequest& request, int64_t layer, int64_t kv_head, bool with_queries);
// The head `kv_head` of the same layer.
HeadProblem sibling(const HeadProblem& problem, int64_t kv_head);

// All KV heads of the head's layer in their order, for scores that compare them. The head alone where the layer's heads
// hold different numbers of entries, queries are on-policy (a head at a time) or there is no model; then `alone` is
// true unless the layer has one head.
struct LayerHeads {
  std::vector<HeadProblem> heads;
  size_t own = 0;  // index of the head itself
  bool alone = false;
};
LayerHeads heads_of_layer(const HeadProblem& problem);

}  // namespace kvc
