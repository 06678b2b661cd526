// One pass against float64 softmax, at sizes that are no whole panels.
#include "harness/math/attention_statistics.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace kvc {
namespace {

double furthest(const at::Tensor& a, const at::Tensor& b) {
  if (!a.sizes().equals(b.sizes())) return std::numeric_limits<double>::infinity();
  return a.numel() == 0 ? 0 : (a - b).abs().max().item<double>();
}

void expect_like_softmax(int64_t n, int64_t t, int64_t d, int64_t dv, bool with_bias) {
  SCOPED_TRACE(testing::Message() << "n " << n << ", t " << t << ", d " << d << ", bias " << with_bias);
  at::manual_seed(static_cast<std::uint64_t>(n + t));
  const at::Tensor queries = at::randn({n, d}) / 4, keys = at::randn({t, d}) * 2, values = at::randn({t, dv});
  at::Tensor bias, logits = at::mm(queries.to(at::kDouble), keys.t().to(at::kDouble));
  if (with_bias) {
    bias = at::randn({t});
    if (t > 1) bias[t / 2] = -std::numeric_limits<float>::infinity();
    logits = logits + bias;
  }
  const at::Tensor row_max = logits.amax(1, true), weights = at::softmax(logits, 1);
  for (const KeySum sum : {KeySum::kSquares, KeySum::kLargest, KeySum::kPlain}) {
    const AttentionStatistics made = attention_statistics(queries, keys, bias, values, sum);
    const at::Tensor per_key = sum == KeySum::kSquares   ? weights.square().sum(0)
                               : sum == KeySum::kLargest ? weights.amax(0)
                                                         : weights.sum(0);
    // 128 products of some units each, in float32.
    EXPECT_LT(furthest(made.row_max, row_max), 3e-5);
    const at::Tensor row_sum = (logits - row_max).exp().sum(1, true);
    EXPECT_LT(furthest(made.row_sum / row_sum, at::ones_like(row_sum)), 2e-5);
    EXPECT_LT(furthest(made.per_key, per_key), 2e-5 * per_key.max().item<double>());
    EXPECT_LT(furthest(made.output, at::mm(weights, values.to(at::kDouble))), 3e-5);
    EXPECT_FALSE(attention_statistics(queries, keys, bias, {}, sum).output.defined());
  }
}

TEST(AttentionStatistics, AreThoseOfASoftmax) {
  for (const bool with_bias : {false, true}) {
    expect_like_softmax(1, 1, 1, 1, with_bias);
    expect_like_softmax(17, 7, 33, 5, with_bias);
    expect_like_softmax(130, 481, 64, 64, with_bias);
    expect_like_softmax(48, 1500, 128, 128, with_bias);
  }
}

// Some queries see a part, one nothing, and all have mass elsewhere, from none to most of it.
TEST(AttentionStatistics, AreSharesOfWhatAQuerySees) {
  constexpr int64_t n = 70, t = 500, d = 16;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  at::manual_seed(3);
  const at::Tensor queries = at::randn({n, d}), keys = at::randn({t, d}), values = at::randn({t, 8});
  RowReach reach{at::randint(0, t + 1, {n}, at::kLong), at::randn({n}) * 6};
  reach.n_visible[5] = 0;
  reach.n_visible[6] = t;
  reach.n_visible.narrow(0, 16, 16).zero_();  // a whole panel
  reach.elsewhere[6] = -kInfinity;
  reach.elsewhere[7] = 400.0F;
  at::Tensor weights = at::zeros({n, t}, at::kDouble), output = at::zeros({n, 8}, at::kDouble);
  for (int64_t i = 0; i < n; ++i) {
    const auto visible = reach.n_visible[i].item<int64_t>();
    if (visible == 0) continue;
    const at::Tensor logits = at::mv(keys.to(at::kDouble), queries[i].to(at::kDouble)).narrow(0, 0, visible);
    const at::Tensor own = logits.logsumexp(0);
    weights[i].narrow(0, 0, visible) = (logits - at::logaddexp(own, reach.elsewhere[i].to(at::kDouble))).exp();
    output[i] = at::mv(values.narrow(0, 0, visible).t().to(at::kDouble), at::softmax(logits, 0));
  }
  for (const KeySum sum : {KeySum::kSquares, KeySum::kLargest, KeySum::kPlain}) {
    const AttentionStatistics made = attention_statistics(queries, keys, {}, values, sum, reach);
    const at::Tensor per_key = sum == KeySum::kSquares   ? weights.square().sum(0)
                               : sum == KeySum::kLargest ? weights.amax(0)
                                                         : weights.sum(0);
    EXPECT_LT(furthest(made.per_key, per_key), 2e-5 * per_key.max().item<double>());
    EXPECT_LT(furthest(made.output, output), 3e-5);
    EXPECT_EQ(made.row_sum[5].item<float>(), 0);
  }
}

TEST(AttentionStatistics, NoQueriesLeaveNothing) {
  const at::Tensor keys = at::randn({5, 8});
  const AttentionStatistics made = attention_statistics(at::zeros({0, 8}), keys, {}, keys, KeySum::kSquares);
  EXPECT_EQ(made.per_key.abs().max().item<float>(), 0);
  EXPECT_EQ(made.output.size(0), 0);
}

TEST(AttentionStatistics, WhatIsNoNumberStaysNone) {
  at::Tensor keys = at::randn({40, 8});
  keys[3][2] = std::numeric_limits<float>::quiet_NaN();
  const AttentionStatistics made = attention_statistics(at::randn({20, 8}), keys, {}, keys, KeySum::kSquares);
  EXPECT_TRUE(made.row_sum.isnan().all().item<bool>());
  EXPECT_TRUE(made.per_key.isnan().any().item<bool>());
}

}  // namespace
}  // namespace kvc
