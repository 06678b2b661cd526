// Keeps the entries that another method scores above a number: how much is left is measured, not asked for. As
// kvpress's DMSPress evicts by threshold after a whole context was read (its window of protected recent entries is the
// method's own affair here); the idea of a threshold instead of a budget is that of DMS, arXiv:2506.05345, whose
// evictor is trained.
//
// The method inside is called with as many entries for every head as score above the number, and keeps them in its own
// way; an eviction by score keeps just these. Scores must come from single heads' problems before anything is
// compacted, so queries are off-policy.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "harness/api/head_schedule.h"
#include "harness/api/nested_method.h"
#include "harness/api/read_document.h"
#include "harness/core/error.h"
#include "methods/parts/inner_scores.h"

namespace kvc {
namespace {

class Threshold final : public CompactionMethod {
 public:
  struct Options {
    NestedPlugin scores{{{"method", "snapkv"}}};
    double above = 0.001;
    void fields(auto&& visit) {
      visit("scores", scores, "method that scores and keeps: {method: NAME, option: value}");
      visit("above", above, "entries that score more than this are kept", more_than(-1e30, 1e30));
    }
    void complete(const std::string& pointer, Problems& problems) {
      InnerScores::complete(scores.value, "threshold", pointer + "/scores", problems);
    }
  };
  explicit Threshold(const Options& options)
      : options_(options),
        inner_(options.scores.value),
        method_(create_nested<CompactionMethod>(options.scores.value)) {}

  std::string published_queries() const override { return inner_.published_queries(); }
  bool needs_target() const override { return false; }

  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    const c10::InferenceMode inference;
    if (inner_.needs_queries() && request.queries->on_policy()) {
      throw Error(ErrorKind::kUsage,
                  "threshold counts entries before anything is compacted, and on-policy queries are "
                  "made while it is",
                  "queries", "set on_policy: false");
    }
    const int64_t n_kv_heads = request.cache.n_kv_heads(), n_layers = request.cache.n_layers();
    HeadBudget budget = every_head(request.cache, 0);
    for_each_item(n_layers * n_kv_heads, request.cache.layer(0).keys.is_cpu(), [&](int64_t item) {
      const int64_t layer = item / n_kv_heads, head = item % n_kv_heads;
      const at::Tensor scores = inner_.of(head_of(request, layer, head, inner_.needs_queries()));
      budget.target_len.at(layer, head) = scores.gt(options_.above).sum().item<int64_t>();
    });
    CompactionRequest measured = request;
    measured.budgets = {std::move(budget)};
    return method_->compact(measured);
  }

 private:
  Options options_;
  InnerScores inner_;
  std::unique_ptr<CompactionMethod> method_;
};

KVC_REGISTER_METHOD(Threshold, "threshold", "kvpress, DMSPress");

}  // namespace
}  // namespace kvc
