// More entries for low layers, fewer for high ones, on a straight line: with the mean length as 1, the last layer has
// 1 / beta and the first 2 - 1 / beta. All heads of a layer alike. PyramidKV, arXiv:2406.02069.
//
// Where the first layers would exceed what there is, the rest goes to the others in proportion, so that the sum is that
// of the uniform budget.
#include "harness/api/budget_rule.h"

namespace kvc {
namespace {

class Pyramid final : public BudgetRule {
 public:
  struct Options {
    double beta = 20;
    void fields(auto&& visit) {
      visit("beta", beta, "mean length over that of the last layer; 1 is uniform", between(1, 1e6));
    }
  };
  explicit Pyramid(const Options& options) : options_(options) {}

  HeadBudget spread(const BudgetRequest& request) const override {
    HeadBudget budget = uniform_budget(request.target, request.source_len, request.sizes);
    const int64_t n_layers = request.source_len.n_layers();
    const double last = 1 / options_.beta;
    const auto weights = HeadTable<double>::make(n_layers, request.source_len.n_heads(), [&](int64_t layer, int64_t) {
      const double depth = n_layers > 1 ? static_cast<double>(layer) / static_cast<double>(n_layers - 1) : 0.5;
      return (2 - last) + depth * (last - (2 - last));
    });
    budget.target_len = proportional_lengths(weights, request.source_len, total_length(budget));
    return budget;
  }

 private:
  Options options_;
};

KVC_REGISTER_BUDGET(Pyramid, "pyramid", "arXiv:2406.02069");

}  // namespace
}  // namespace kvc
