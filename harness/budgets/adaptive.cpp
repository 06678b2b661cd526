// Heads compete for entries by the method's own scores. scope: layer with a floor is Ada-KV (arXiv:2407.11550), which
// shares a layer's budget among its heads and leaves every head `floor_fraction` of an equal share; scope: all without
// a floor is the non-uniform budget of KVzip (arXiv:2505.23416).
#include "harness/api/budget_rule.h"

namespace kvc {
namespace {

class Adaptive final : public BudgetRule {
 public:
  struct Options {
    std::string scope = "layer";
    double floor_fraction = 0.2;
    void fields(auto&& visit) {
      visit("scope", scope, "heads that compete: those of a 'layer', or 'all'");
      visit("floor_fraction", floor_fraction, "part of an equal share that every head keeps, 0 to 1");
    }
    void check(const OptionCheck& fail) const {
      if (scope != "layer" && scope != "all") fail("scope", fmt::format("is '{}'", scope), "'layer' or 'all'");
      if (!(floor_fraction >= 0 && floor_fraction <= 1)) {
        fail("floor_fraction", fmt::format("is {}", floor_fraction), "a number from 0 to 1");
      }
    }
  };
  explicit Adaptive(const Options& options) : options_(options) {}

  HeadBudget spread(const BudgetRequest& request) const override {
    HeadBudget budget = uniform_budget(request.target, request.source_len);
    using Scope = AdaptiveShare::Scope;
    budget.adaptive = AdaptiveShare{options_.scope == "all" ? Scope::kAll : Scope::kLayer, options_.floor_fraction};
    return budget;
  }

 private:
  Options options_;
};

KVC_REGISTER_BUDGET(Adaptive, "adaptive", "arXiv:2407.11550, arXiv:2505.23416");

}  // namespace
}  // namespace kvc
