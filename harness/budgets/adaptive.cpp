// Heads compete for entries by the method's own scores, within a layer (Ada-KV, arXiv:2407.11550) or over all layers
// (KVzip, arXiv:2505.23416: scope: all, floor_fraction: 0).
//
// What protects a head from starving has two readings. safeguard: floor is kvpress's: every head keeps its own best
// floor_fraction of an equal share, the rest goes to the best of all other entries. safeguard: blend is Ada-KV's own:
// floor_fraction of an equal share and 1 - floor_fraction of what the head gets when all entries compete.
//
// scope: layers is KVCompose's (arXiv:2509.05165): the heads of a layer stay of one length, and layers compete by their
// composite entries, the i-th best of all heads of a layer together. Every layer keeps floor_fraction of an equal
// share. (kvpress also makes the first layer the longest, which its cache needs and this one does not.)
#include "harness/api/budget_rule.h"

namespace kvc {
namespace {

class Adaptive final : public BudgetRule {
 public:
  struct Options {
    std::string scope = "layer";
    double floor_fraction = 0.2;
    std::string safeguard = "floor";
    void fields(auto&& visit) {
      visit("scope", scope, "what competes: the heads of a 'layer', 'all' heads, or whole 'layers'",
            one_of({"layer", "all", "layers"}));
      visit("floor_fraction", floor_fraction, "part of an equal share that every head keeps, 0 to 1", between(0, 1));
      visit("safeguard", safeguard, "how it keeps it: floor (as kvpress), or blend (as Ada-KV's paper)",
            one_of({"floor", "blend"}));
    }
    void check(const OptionCheck& fail) const {
      if (scope == "layers" && safeguard == "blend") {
        fail("safeguard", "is 'blend', which whole layers have not", "safeguard: floor");
      }
    }
  };
  explicit Adaptive(const Options& options) : options_(options) {}

  HeadBudget spread(const BudgetRequest& request) const override {
    HeadBudget budget = uniform_budget(request.target, request.source_len, request.sizes);
    using Scope = AdaptiveShare::Scope;
    using Safeguard = AdaptiveShare::Safeguard;
    const Scope scope = options_.scope == "all"      ? Scope::kAll
                        : options_.scope == "layers" ? Scope::kLayers
                                                     : Scope::kLayer;
    budget.adaptive = AdaptiveShare{scope, options_.floor_fraction,
                                    options_.safeguard == "blend" ? Safeguard::kBlend : Safeguard::kFloor};
    return budget;
  }

 private:
  Options options_;
};

KVC_REGISTER_BUDGET(Adaptive, "adaptive", "arXiv:2407.11550, arXiv:2505.23416, arXiv:2509.05165");

}  // namespace
}  // namespace kvc
