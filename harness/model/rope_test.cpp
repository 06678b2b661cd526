// Frequencies and factors against those of transformers (scripts/golden/rope.py) for every kind of scaling.
#include "harness/model/rope.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <map>

#include "harness/core/config_text.h"
#include "harness/core/error.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Json golden() {
  std::ifstream in(std::string(KVC_SOURCE_DIR) + "/harness/testing/golden/rope.json");
  if (!in) throw std::runtime_error("harness/testing/golden/rope.json is missing");
  return Json::parse(in);
}

DecoderSpec spec_of(const Json& test_case) {
  const Json& scaling = test_case.at("rope_scaling");
  const auto number = [&](const char* name, double otherwise) {
    return scaling.contains(name) ? scaling.at(name).get<double>() : otherwise;
  };
  const std::map<std::string, RopeScaling> kinds = {{"default", RopeScaling::kNone},
                                                    {"linear", RopeScaling::kLinear},
                                                    {"dynamic", RopeScaling::kDynamic},
                                                    {"llama3", RopeScaling::kLlama3},
                                                    {"yarn", RopeScaling::kYarn}};
  DecoderSpec spec;
  spec.head_dim = test_case.at("head_dim").get<int64_t>();
  spec.max_positions = test_case.at("max_position_embeddings").get<int64_t>();
  spec.rope_base = test_case.at("rope_theta").get<double>();
  spec.rope_scaling = kinds.at(scaling.at("rope_type").get<std::string>());
  spec.rope_scaling_factor = number("factor", 1);
  spec.rope_original_max_positions = static_cast<int64_t>(number("original_max_position_embeddings", 0));
  if (spec.rope_scaling == RopeScaling::kDynamic) {
    spec.rope_original_max_positions = spec.max_positions;
    spec.rope_dynamic_positions = test_case.at("positions").get<int64_t>();
    spec.max_positions *= 8;
  }
  spec.rope_low_freq_factor = number("low_freq_factor", 1);
  spec.rope_high_freq_factor = number("high_freq_factor", 4);
  spec.rope_beta_fast = number("beta_fast", 32);
  spec.rope_beta_slow = number("beta_slow", 1);
  spec.rope_yarn_truncate = scaling.value("truncate", true);
  spec.rope_attention_factor = number("attention_factor", 0);
  spec.rope_mscale = number("mscale", 0);
  spec.rope_mscale_all_dim = number("mscale_all_dim", 0);
  return spec;
}

// The powers may differ in their last float32 bit, and a ramp adds two such terms.
TEST(Rope, FrequenciesAreThoseOfTransformers) {
  double largest = 0;
  const Json cases = golden().at("cases");
  ASSERT_GE(cases.size(), 19U);
  for (const Json& test_case : cases) {
    const auto name = test_case.at("name").get<std::string>();
    const RopeFrequencies rope = rope_frequencies(spec_of(test_case));
    const auto expected = test_case.at("frequencies").get<std::vector<double>>();
    ASSERT_EQ(rope.frequencies.size(), expected.size()) << name;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double error = std::abs(static_cast<double>(rope.frequencies[i]) / expected[i] - 1);
      largest = std::max(largest, error);
      EXPECT_LT(error, 4 * static_cast<double>(std::numeric_limits<float>::epsilon())) << name << ", pair " << i;
    }
    EXPECT_NEAR(rope.factor, test_case.at("factor").get<double>(), 1e-12) << name;
  }
  RecordProperty("largest_relative_error", std::to_string(largest * 1e7) + "e-7");
}

DecoderSpec small(RopeScaling scaling) {
  DecoderSpec spec;
  spec.head_dim = 16;
  spec.max_positions = 256;
  spec.rope_scaling = scaling;
  spec.rope_scaling_factor = scaling == RopeScaling::kNone ? 1 : 4;
  spec.rope_original_max_positions = 64;
  return spec;
}

TEST(Rope, DynamicScalingStartsBeyondTheOriginalLength) {
  const std::vector<float> plain = rope_frequencies(small(RopeScaling::kNone)).frequencies;
  DecoderSpec spec = small(RopeScaling::kDynamic);
  for (const int64_t within : {1, 63, 64}) {
    spec.rope_dynamic_positions = within;
    EXPECT_EQ(rope_frequencies(spec).frequencies, plain) << within;
  }
  spec.rope_dynamic_positions = 65;
  EXPECT_NE(rope_frequencies(spec).frequencies, plain);
  spec.rope_dynamic_positions = 256;
  const std::vector<float> longest = rope_frequencies(spec).frequencies;
  spec.rope_dynamic_positions = 0;  // as long as the model goes
  EXPECT_EQ(rope_frequencies(spec).frequencies, longest);
}

TEST(Rope, DivisorsComeBeforeTheStretch) {
  const std::vector<double> divisors = {1, 1, 1.5, 2, 3, 4, 4, 4};
  const std::vector<float> plain = rope_frequencies(small(RopeScaling::kNone)).frequencies;
  for (const RopeScaling scaling : {RopeScaling::kNone, RopeScaling::kLlama3, RopeScaling::kLinear}) {
    DecoderSpec spec = small(scaling);
    spec.rope_frequency_divisors = divisors;
    const std::vector<float> divided = rope_frequencies(spec).frequencies;
    const double factor = scaling == RopeScaling::kLinear ? 4 : 1;  // llama3: the divisors are the stretch
    for (size_t i = 0; i < divisors.size(); ++i) {
      EXPECT_FLOAT_EQ(divided[i], static_cast<float>(static_cast<double>(plain[i]) / divisors[i] / factor));
    }
  }
}

TEST(Rope, TablesGrowAndCarryTheFactor) {
  DecoderSpec spec = small(RopeScaling::kYarn);
  spec.max_positions = 20000;
  const RopeFrequencies rope = rope_frequencies(spec);
  EXPECT_GT(rope.factor, 1.1);
  const RopeTables tables(spec, at::kCPU);
  const RotaryTables few = tables.covering(10);
  const RotaryTables many = tables.covering(20000);
  EXPECT_LT(few.cos.size(0), 20000);
  ASSERT_EQ(many.cos.size(0), 20000);
  EXPECT_TRUE(at::equal(many.cos.narrow(0, 0, few.cos.size(0)), few.cos));
  EXPECT_TRUE(at::equal(many.sin.narrow(0, 0, few.sin.size(0)), few.sin));
  for (const int64_t position : {0, 1, 9, 19999}) {
    for (int64_t i = 0; i < 8; ++i) {
      const float angle = static_cast<float>(position) * rope.frequencies[static_cast<size_t>(i)];
      EXPECT_NEAR(many.cos[position][i].item<double>(), std::cos(static_cast<double>(angle)) * rope.factor, 2e-7);
      EXPECT_NEAR(many.sin[position][i].item<double>(), std::sin(static_cast<double>(angle)) * rope.factor, 2e-7);
    }
  }
}

TEST(Rope, RefusesNumbersWithoutMeaning) {
  const auto with = [](RopeScaling scaling, const std::function<void(DecoderSpec&)>& change) {
    DecoderSpec spec = small(scaling);
    change(spec);
    return [spec] { (void)RopeTables(spec, at::kCPU); };
  };
  const auto message = [](const char* part) { return ThrowsMessage<Error>(HasSubstr(part)); };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(with(RopeScaling::kNone, [](auto& s) { s.rope_base = -1; }), message("rotary base -1"));
  EXPECT_THAT(with(RopeScaling::kLinear, [&](auto& s) { s.rope_scaling_factor = nan; }), message("scaling factor nan"));
  EXPECT_THAT(with(RopeScaling::kYarn, [](auto& s) { s.rope_original_max_positions = 0; }),
              message("without the context length before the stretch"));
  EXPECT_THAT(with(RopeScaling::kYarn, [](auto& s) { s.rope_beta_fast = 0; }), message("beta_fast 0"));
  EXPECT_THAT(with(RopeScaling::kYarn, [](auto& s) { s.rope_base = 1; }), message("base 1"));
  EXPECT_THAT(with(RopeScaling::kLlama3, [](auto& s) { s.rope_high_freq_factor = 1; }),
              message("low and high frequency factors 1 and 1"));
  EXPECT_THAT(with(RopeScaling::kDynamic, [](auto& s) { s.head_dim = 2; }), message("head dimension 2"));
  EXPECT_THAT(with(RopeScaling::kNone, [](auto& s) { s.max_positions = (1 << 24) + 1; }),
              message("the context length must be 1 to"));
  EXPECT_THAT(with(RopeScaling::kNone, [](auto& s) { s.rope_frequency_divisors = {1, 1, 1, 0, 1, 1, 1, 1}; }),
              message("divisor is not positive"));
}

}  // namespace
}  // namespace kvc
