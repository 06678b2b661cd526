// The table, h and rows of G against float64 products, at sizes that are no whole panels.
#include "harness/math/exponential_table.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace kvc {
namespace {

struct Case {
  at::Tensor queries, keys, bias, row_max, y;
  at::Tensor expected;  // E (n,T) float64

  Case(int64_t n, int64_t t, int64_t d, bool with_bias) {
    at::manual_seed(static_cast<std::uint64_t>(n + t + d));
    queries = at::randn({n, d}) / 4;
    keys = at::randn({t, d}) * 2;
    at::Tensor logits = at::mm(queries.to(at::kDouble), keys.t().to(at::kDouble));
    if (with_bias) {
      bias = at::randn({t});
      if (t > 1) bias[t / 2] = -std::numeric_limits<float>::infinity();
      logits = logits + bias;
    }
    row_max = logits.amax(1).to(at::kFloat);
    expected = (logits - row_max.unsqueeze(1)).exp();
    y = expected.sum(1).to(at::kFloat);
  }
  ExponentialTable table() const { return {queries, keys, bias, row_max, y}; }
  int64_t keys_len() const { return keys.size(0); }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool with_bias : {false, true}) {
    all.emplace_back(1, 1, 1, with_bias);
    all.emplace_back(479, 15, 33, with_bias);
    all.emplace_back(481, 17, 64, with_bias);
    all.emplace_back(1003, 130, 128, with_bias);
  }
  return all;
}

TEST(ExponentialTable, ColumnsAreExponentialsToFloat32) {
  for (const Case& one : cases()) {
    const ExponentialTable table = one.table();
    for (int64_t key = 0; key < one.keys_len(); ++key) {
      const std::vector<float> column = table.column(key);
      const at::Tensor expected = one.expected.select(1, key).contiguous();
      ASSERT_EQ(static_cast<int64_t>(column.size()), expected.size(0));
      for (size_t i = 0; i < column.size(); ++i) {
        // A logit of some ten units is known to a few times 1e-6 in float32.
        const double e = expected.const_data_ptr<double>()[i];
        ASSERT_NEAR(column[i], e, 2e-5 * e + 1e-37) << "key " << key << ", query " << i;
      }
    }
  }
}

TEST(ExponentialTable, FarBelowTheMaximumIsZero) {
  const at::Tensor one = at::ones({1, 1});
  for (const float x : {-86.0F, -88.0F, -1e30F}) {
    const ExponentialTable table(one * x, one, {}, at::zeros({1}), at::ones({1}));
    const float expected = x > -87.0F ? std::exp(x) : 0.0F;
    EXPECT_NEAR(table.column(0)[0], expected, 1e-6F * expected);
  }
}

TEST(ExponentialTable, MomentAndGramRows) {
  for (const Case& one : cases()) {
    const ExponentialTable table = one.table();
    const at::Tensor h = at::mv(one.expected.t(), one.y.to(at::kDouble)), gram = at::mm(one.expected.t(), one.expected);
    ASSERT_EQ(static_cast<int64_t>(table.moment().size()), one.keys_len());
    for (int64_t j = 0; j < one.keys_len(); ++j) {
      const double expected = h[j].item<double>();
      EXPECT_NEAR(table.moment()[static_cast<size_t>(j)], expected, 1e-5 * expected) << "key " << j;
    }
    std::vector<int64_t> some;
    for (int64_t j = one.keys_len() - 1; j >= 0; j -= 3) some.push_back(j);  // no multiple of 6, not in order
    const at::Tensor rows = table.gram_rows(some);
    const at::Tensor expected = gram.index_select(0, at::tensor(some, at::kLong));
    ASSERT_EQ(rows.sizes(), expected.sizes());
    EXPECT_LT((rows - expected).abs().max().item<double>(), 1e-5 * gram.max().item<double>());
    const int64_t from = one.keys_len() / 2;
    const at::Tensor part = table.gram_rows(some, from);
    EXPECT_TRUE(part.narrow(1, from, one.keys_len() - from).equal(rows.narrow(1, from, one.keys_len() - from)));
  }
}

TEST(ExponentialTable, NothingGivesNothing) {
  const ExponentialTable table(at::zeros({0, 4}), at::randn({3, 4}), {}, at::zeros({0}), at::zeros({0}));
  EXPECT_TRUE(table.column(1).empty());
  EXPECT_EQ(table.gram_rows({0, 2}).abs().max().item<float>(), 0);
  EXPECT_EQ(table.gram_rows({}).numel(), 0);
}

}  // namespace
}  // namespace kvc
