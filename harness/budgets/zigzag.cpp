// Layers whose attention is spread get more entries, layers that look at few get fewer. Zhong et al., "ZigZagKV:
// Dynamic KV Cache Compression for Long-context Modeling based on Layer Uncertainty", arXiv:2412.09036.
//
//   u_l = mean over the layer's heads of the number of best entries that hold mass_fraction of the scores' sum
//   length_l = floor_fraction B + (1 - floor_fraction) B L u_l / sum u         B mean length, L layers
//
// Scores are those of the method, as in the public implementation for kvpress (pull request 238, from which both
// constants are); the paper counts attention weights, which snapkv, h2o, kvzip and tova have. Scores below 0 count as
// 0, so that keydiff's or key_norm's say nothing: all layers alike. What a layer cannot take goes to the others in
// proportion. All heads of a layer alike.
#include "harness/api/budget_rule.h"

namespace kvc {
namespace {

class ZigZag final : public BudgetRule {
 public:
  struct Options {
    double mass_fraction = 0.9;
    double floor_fraction = 0.2;
    void fields(auto&& visit) {
      visit("mass_fraction", mass_fraction, "part of a head's scores that its counted entries hold, above 0, at most 1",
            more_than(0, 1));
      visit("floor_fraction", floor_fraction, "part of an equal share that every layer keeps, 0 to 1", between(0, 1));
    }
  };
  explicit ZigZag(const Options& options) : options_(options) {}

  HeadBudget spread(const BudgetRequest& request) const override {
    HeadBudget budget = uniform_budget(request.target, request.source_len, request.sizes);
    budget.adaptive = AdaptiveShare{AdaptiveShare::Scope::kUncertainty, options_.floor_fraction,
                                    AdaptiveShare::Safeguard::kFloor, options_.mass_fraction};
    return budget;
  }

 private:
  Options options_;
};

KVC_REGISTER_BUDGET(ZigZag, "zigzag", "arXiv:2412.09036");

}  // namespace
}  // namespace kvc
