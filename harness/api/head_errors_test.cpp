#include "harness/api/head_errors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace kvc {
namespace {

TEST(HeadErrors, ValuesThatCanBeSeen) {
  // Queries of zeros: all logits are the bias, masses are counts, outputs are means.
  HeadProblem problem;
  problem.keys = at::ones({4, 2});
  problem.values = at::tensor({1.0F, 0.0F, 1.0F, 0.0F, 3.0F, 0.0F, 3.0F, 0.0F}).view({4, 2});  // mean (2, 0)
  const at::Tensor queries = at::zeros({3, 2});
  HeadFit fit;
  fit.keys = problem.keys.narrow(0, 0, 1);
  fit.values = at::tensor({2.0F, 1.0F}).view({1, 2});
  fit.bias = at::full({1}, std::log(2.0F));  // half of the mass of four
  const HeadErrors errors = head_errors(problem, fit, queries);
  EXPECT_EQ(errors.n_queries, 3);
  EXPECT_NEAR(errors.mass_relative_rms, 0.5, 1e-6);
  EXPECT_NEAR(errors.mass_relative_max, 0.5, 1e-6);
  EXPECT_NEAR(errors.log_mass_mean_abs, std::log(2.0), 1e-6);
  EXPECT_NEAR(errors.output_relative, 0.5, 1e-6);
  EXPECT_NEAR(errors.output_relative_max, 0.5, 1e-6);
  EXPECT_NEAR(errors.cosine_mean, 2 / std::sqrt(5.0), 1e-6);
}

TEST(HeadErrors, NothingIsLostByKeepingAll) {
  at::manual_seed(3);
  HeadProblem problem;
  problem.keys = at::randn({50, 8});
  problem.values = at::randn({50, 8});
  problem.bias = at::randn({50});
  HeadFit fit;
  fit.keys = problem.keys;
  fit.values = problem.values;
  fit.bias = problem.bias;
  const HeadErrors errors = head_errors(problem, fit, at::randn({33, 8}));
  EXPECT_EQ(errors.mass_relative_max, 0);
  EXPECT_EQ(errors.output_relative_max, 0);
  EXPECT_NEAR(errors.cosine_mean, 1, 1e-9);
}

}  // namespace
}  // namespace kvc
