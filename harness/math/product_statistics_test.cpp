// Statistics of several heads by products against the CPU's own way, which float64 loops judge.
#include "harness/math/product_statistics.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "harness/core/error.h"

namespace kvc {
namespace {

at::Tensor normal_numbers(std::vector<int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

double distance(const at::Tensor& got, const at::Tensor& want) {
  return ((got - want).abs().max() / want.abs().max()).item<double>();
}

class Sums : public testing::TestWithParam<std::tuple<KeySum, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(ProductStatistics, Sums,
                         testing::Combine(testing::Values(KeySum::kSquares, KeySum::kLargest, KeySum::kPlain),
                                          testing::Values(at::kFloat, at::kBFloat16)));

TEST_P(Sums, ManyHeadsAreThoseOfEachAlone) {
  const auto [sum, dtype] = GetParam();
  const int64_t heads = 3, n = 45, t = 70, d = 24;
  const at::Tensor queries = (normal_numbers({heads, n, d}, 1) * 2).to(dtype),
                   keys = normal_numbers({heads, t, d}, 2).to(dtype);
  const at::Tensor values = normal_numbers({heads, t, d}, 3).to(dtype), old_bias = normal_numbers({heads, t}, 4);
  for (const at::Tensor& bias : {at::Tensor(), old_bias}) {
    // All queries at once, and 16 at a time.
    for (const int64_t bytes : {kStatisticsBytes, int64_t{1}}) {
      const AttentionStatistics got = statistics_by_products(queries, keys, bias, values, sum, {}, bytes);
      for (int64_t h = 0; h < heads; ++h) {
        const AttentionStatistics want =
            attention_statistics(queries[h].to(at::kFloat) / std::sqrt(static_cast<double>(d)), keys[h].to(at::kFloat),
                                 bias.defined() ? bias[h] : bias, values[h].to(at::kFloat), sum);
        EXPECT_LT(distance(got.row_max[h], want.row_max), 1e-5);
        EXPECT_LT(distance(got.row_sum[h], want.row_sum), 1e-5);
        EXPECT_LT(distance(got.per_key[h], want.per_key), 1e-5);
        EXPECT_LT(distance(got.output[h], want.output), 1e-5);
      }
    }
  }
}

TEST(ProductStatistics, ReachIsThatOfTheCpusWay) {
  const int64_t n = 40, t = 30, d = 16;
  const at::Tensor queries = normal_numbers({1, n, d}, 1), keys = normal_numbers({1, t, d}, 2);
  RowReach reach;
  reach.n_visible = at::arange(n, at::kLong).sub(5).clamp(0, t);  // the first ones see nothing
  reach.elsewhere = normal_numbers({n}, 3);
  reach.weight = normal_numbers({n}, 4).abs();
  for (const KeySum sum : {KeySum::kSquares, KeySum::kLargest, KeySum::kPlain}) {
    const AttentionStatistics got = statistics_by_products(queries, keys, {}, keys, sum, reach, 1);
    const AttentionStatistics want =
        attention_statistics(queries[0] / std::sqrt(static_cast<double>(d)), keys[0], {}, keys[0], sum, reach);
    EXPECT_LT(distance(got.row_sum[0], want.row_sum), 1e-5);
    EXPECT_LT(distance(got.per_key[0], want.per_key), 1e-5);
    EXPECT_LT(distance(got.output[0], want.output), 1e-5);
  }
  EXPECT_THROW(
      (void)statistics_by_products(queries.expand({2, n, d}), keys.expand({2, t, d}), {}, {}, KeySum::kPlain, reach),
      Error);
}

}  // namespace
}  // namespace kvc
