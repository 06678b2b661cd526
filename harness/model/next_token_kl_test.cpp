#include "harness/model/next_token_kl.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace kvc {
namespace {

at::Tensor some_rows(double spread, int64_t seed) {
  at::manual_seed(seed);
  return at::log_softmax(at::randn({5, 300}).to(at::kDouble).mul(spread), -1);
}

double naive_kl(const at::Tensor& log_p, const at::Tensor& log_q, int64_t row) {
  const auto p = log_p.accessor<double, 2>(), q = log_q.accessor<double, 2>();
  double sum = 0;
  for (int64_t id = 0; id < log_p.size(1); ++id) sum += std::exp(p[row][id]) * (p[row][id] - q[row][id]);
  return sum;
}

TEST(NextTokenKl, IsTheDefinitionsSum) {
  const at::Tensor p = some_rows(3, 1), q = some_rows(2, 2);
  const at::Tensor wide = next_token_kl(p, q.clone());
  const at::Tensor narrow = next_token_kl(p.to(at::kFloat), q.to(at::kFloat));
  ASSERT_EQ(wide.scalar_type(), at::kDouble);
  ASSERT_EQ(narrow.scalar_type(), at::kDouble);
  for (int64_t row = 0; row < p.size(0); ++row) {
    const double judge = naive_kl(p, q, row);
    EXPECT_GT(judge, 0.1);
    EXPECT_NEAR(wide[row].item<double>(), judge, 1e-13 * judge);
    EXPECT_NEAR(narrow[row].item<double>(), judge, 1e-5 * judge);
  }
}

TEST(NextTokenKl, EqualRowsAreZeroApart) {
  const at::Tensor p = some_rows(3, 1).to(at::kFloat);
  EXPECT_TRUE(at::equal(next_token_kl(p, p.clone()), at::zeros({5}, at::kDouble)));
}

}  // namespace
}  // namespace kvc
