// Every head keeps the same fraction, or the same number of entries.
#include "harness/api/budget_rule.h"

namespace kvc {
namespace {

class Uniform final : public BudgetRule {
 public:
  using Options = NoOptions;
  explicit Uniform(const Options& /*options*/) {}

  HeadBudget spread(const BudgetRequest& request) const override {
    return uniform_budget(request.target, request.source_len, request.sizes);
  }
};

KVC_REGISTER_BUDGET(Uniform, "uniform", "");

}  // namespace
}  // namespace kvc
