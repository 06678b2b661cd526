#include "harness/math/attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "harness/testing/naive_attention.h"

namespace kvc {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class Attention : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(17); }
};

PartialAttention to_float(const PartialAttention& part) {
  return {part.output.to(at::kFloat), part.log_sum_exp.to(at::kFloat)};
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

TEST_F(Attention, LogitsAreScaledProductsPlusBias) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor queries = at::randn({7, 24}).to(dtype), keys = at::randn({11, 24}).to(dtype);
    const at::Tensor bias = at::randn({11});
    const at::Tensor logits = attention_logits(queries, keys, bias);
    ASSERT_EQ(logits.scalar_type(), at::kFloat);
    for (int64_t i = 0; i < 7; ++i) {
      for (int64_t j = 0; j < 11; ++j) {
        double dot = 0;
        for (int64_t c = 0; c < 24; ++c) dot += queries[i][c].item<double>() * keys[j][c].item<double>();
        // float32 sums of 24 exact products; also in bfloat16, whose products are exact in float32.
        EXPECT_NEAR(logits[i][j].item<double>(), dot / std::sqrt(24.0) + bias[j].item<double>(), 2e-6);
      }
    }
    EXPECT_TRUE(at::equal(attention_logits(queries, keys, {}), attention_logits(queries, keys, at::zeros({11}))));
  }
}

TEST_F(Attention, LogitsOfNoKeysAndBiasOfMinusInfinity) {
  EXPECT_EQ(attention_logits(at::randn({3, 8}), at::randn({0, 8}), {}).sizes(), (at::IntArrayRef{3, 0}));
  at::Tensor bias = at::zeros({2});
  bias[1] = -kInfinity;
  const at::Tensor logits = attention_logits(at::randn({3, 8}), at::randn({2, 8}), bias);
  EXPECT_TRUE(logits.select(1, 1).eq(-kInfinity).all().item<bool>());
  EXPECT_TRUE(logits.select(1, 0).isfinite().all().item<bool>());
}

// The concatenation identity: merged halves equal the whole.
TEST_F(Attention, MergedPartsEqualTheWhole) {
  const at::Tensor queries = at::randn({5, 16}), keys = at::randn({40, 16}) * 3, values = at::randn({40, 16});
  const at::Tensor bias = at::randn({40});
  const auto part = [&](int64_t begin, int64_t end) {
    return to_float(naive_attention(queries, keys.slice(0, begin, end), values.slice(0, begin, end),
                                    bias.slice(0, begin, end), std::vector<int64_t>(5, end - begin)));
  };
  const PartialAttention whole = part(0, 40);
  for (const int64_t cut : {0, 1, 13, 39, 40}) {
    const PartialAttention merged = merge(part(0, cut), part(cut, 40));
    EXPECT_LT(largest_difference(merged.output, whole.output), 2e-6) << "cut " << cut;
    EXPECT_LT(largest_difference(merged.log_sum_exp, whole.log_sum_exp), 2e-6) << "cut " << cut;
  }
  const PartialAttention three = merge(merge(part(0, 9), part(9, 20)), part(20, 40));
  EXPECT_LT(largest_difference(three.output, whole.output), 2e-6);
}

// A constant c added to every bias of one part changes nothing but its weight, which becomes e^c M / (e^c M + M_R).
TEST_F(Attention, AConstantOnTheBiasOnlyMovesTheWeight) {
  const PartialAttention a{at::ones({1, 4}), at::full({1}, 0.5F)}, b{at::zeros({1, 4}), at::full({1}, 1.0F)};
  const double c = 0.75;
  const PartialAttention merged = merge({a.output, a.log_sum_exp + c}, b);
  const double mass_a = std::exp(0.5 + c), mass_b = std::exp(1.0);
  EXPECT_NEAR(merged.output[0][2].item<double>(), mass_a / (mass_a + mass_b), 1e-6);
  EXPECT_NEAR(merged.log_sum_exp.item<double>(), std::log(mass_a + mass_b), 1e-6);
}

TEST_F(Attention, NothingMergedWithNothingIsNothing) {
  const PartialAttention nothing{at::zeros({2, 3, 4}), at::full({2, 3}, -kInfinity)};
  const PartialAttention merged = merge(nothing, nothing);
  EXPECT_TRUE(merged.output.eq(0).all().item<bool>());
  EXPECT_TRUE(merged.log_sum_exp.eq(-kInfinity).all().item<bool>());
}

TEST_F(Attention, MergingWithNothingKeepsEveryBit) {
  const PartialAttention nothing{at::zeros({2, 3, 4}), at::full({2, 3}, -kInfinity)};
  const PartialAttention some{at::randn({2, 3, 4}), at::randn({2, 3}) * 50};
  for (const PartialAttention& merged : {merge(some, nothing), merge(nothing, some)}) {
    EXPECT_TRUE(at::equal(merged.output, some.output));
    EXPECT_TRUE(at::equal(merged.log_sum_exp, some.log_sum_exp));
  }
}

TEST_F(Attention, MergeOfHugeMassesDoesNotOverflow) {
  const PartialAttention a{at::ones({1, 2}), at::full({1}, 1e4F)}, b{at::full({1, 2}, 3.0F), at::full({1}, 1e4F)};
  EXPECT_NEAR(merge(a, b).output[0][0].item<double>(), 2.0, 2e-3);  // float32 spacing at 1e4 is 1e-3
  EXPECT_NEAR(merge(a, b).log_sum_exp.item<double>(), 1e4 + std::log(2.0), 1e-3);
}

}  // namespace
}  // namespace kvc
