// Scores that shared a budget are those that rank the keys, and nobody computes them twice.
#include "methods/parts/scored_keys.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>

#include "harness/testing/method_scene.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

// Counts how often it is asked.
class Counted final : public ScoredKeys {
 public:
  enum class Ranking { kAsGiven, kAskedAgain };
  explicit Counted(Ranking ranking = Ranking::kAsGiven) : ranking_(ranking) {}
  at::Tensor scores(const HeadProblem& problem) const override {
    ++n_asked;
    return problem.keys.to(at::kFloat).norm(2, 1);
  }
  mutable std::atomic<int> n_asked = 0;

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t largest_target_len) const override {
    if (ranking_ == Ranking::kAsGiven) return ScoredKeys::prepare(problem, largest_target_len);
    const at::Tensor order = best_keys(scores(problem), largest_target_len);
    return [problem, order](int64_t target_len) { return keep(problem, order.narrow(0, 0, target_len)); };
  }

 private:
  Ranking ranking_;
};

HeadBudget shared(int64_t target_len, AdaptiveShare::Scope scope) {
  HeadBudget budget = every_head(target_len);
  budget.adaptive = AdaptiveShare{scope, 0.5};
  return budget;
}

TEST(ScoredKeys, AreScoredOnceAHeadWhateverTheBudgets) {
  using Scope = AdaptiveShare::Scope;
  const Scene& scene = Scene::of(at::kFloat);
  const std::vector<HeadBudget> budgets = {shared(25, Scope::kLayer), shared(25, Scope::kAll), every_head(7)};
  const Counted once, twice(Counted::Ranking::kAskedAgain);
  const std::vector<Compaction> made = scene.compact(once, budgets), judge = scene.compact(twice, budgets);
  EXPECT_EQ(once.n_asked, kLayers * kKvHeads);
  EXPECT_EQ(twice.n_asked, 2 * kLayers * kKvHeads);
  for (size_t b = 0; b < budgets.size(); ++b) EXPECT_TRUE(same_bits(made[b].cache, judge[b].cache)) << b;
}

TEST(ScoredKeys, AreScoredOnceAHeadWithoutASharedBudgetToo) {
  const Counted method;
  Scene::of(at::kFloat).compact(method, {every_head(25), every_head(7)});
  EXPECT_EQ(method.n_asked, kLayers * kKvHeads);
}

}  // namespace
}  // namespace kvc
