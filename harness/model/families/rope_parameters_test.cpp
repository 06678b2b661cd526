#include "harness/model/families/rope_parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/model/families/family_fixture.h"

namespace kvc {
namespace {

using testing::AllOf;
using testing::HasSubstr;

using RopeParametersTest = FamilyTest;

TEST_F(RopeParametersTest, RopeParametersInOldAndNewSpelling) {
  const DecoderSpec linear = config_spec({{"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}});
  EXPECT_EQ(linear.rope_scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear.rope_scaling_factor, 4.0);
  EXPECT_EQ(linear.max_positions, 256);
  EXPECT_EQ(linear.rope_base, 500.0);
  const json parameters = {{"rope_type", "llama3"},   {"rope_theta", 700.0},
                           {"factor", 8.0},           {"low_freq_factor", 1.0},
                           {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 16}};
  const DecoderSpec llama3 = config_spec({{"rope_parameters", parameters}});
  EXPECT_EQ(llama3.rope_scaling, RopeScaling::kLlama3);
  EXPECT_EQ(llama3.rope_base, 700.0);
  EXPECT_EQ(llama3.rope_original_max_positions, 16);
  EXPECT_EQ(llama3.rope_high_freq_factor, 4.0);
  EXPECT_EQ(llama3.max_positions, 64);
  const DecoderSpec dynamic = config_spec({{"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}}});
  EXPECT_EQ(dynamic.rope_scaling, RopeScaling::kDynamic);
  EXPECT_EQ(dynamic.rope_original_max_positions, 64);
  EXPECT_EQ(dynamic.max_positions, 128);
  const DecoderSpec yarn =
      config_spec({{"rope_scaling",
                    {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}, {"beta_fast", 16}}}});
  EXPECT_EQ(yarn.rope_scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn.max_positions, 128);
  EXPECT_EQ(yarn.rope_original_max_positions, 32);
  EXPECT_EQ(yarn.rope_beta_fast, 16.0);
  EXPECT_EQ(yarn.rope_beta_slow, 1.0);
  EXPECT_EQ(yarn.rope_attention_factor, 0.0);
  EXPECT_EQ(config_spec({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 9.0}}}}).rope_base, 9.0);
  EXPECT_EQ(config_spec({{"rope_scaling", nullptr}}).rope_scaling, RopeScaling::kNone);
}

TEST_F(RopeParametersTest, WrongRopeParametersAreRefused) {
  const auto error = [&](const json& value) { return config_error("rope_scaling", value); };
  EXPECT_THAT(error({{"rope_type", "longrope"}, {"factor", 2}}),
              AllOf(HasSubstr("RoPE scaling 'longrope' is not supported"), HasSubstr("default, linear, dynamic")));
  EXPECT_THAT(error({{"rope_type", "longrope"}, {"long_factor", {1, 2}}, {"short_factor", {1, 2}}}),
              HasSubstr("RoPE scaling 'longrope' is not supported"));
  EXPECT_THAT(error({{"rope_type", "linear"}}), HasSubstr("RoPE parameter 'factor' is missing"));
  EXPECT_THAT(error({{"rope_type", "linear"}, {"factor", 0}}), HasSubstr("RoPE parameter 'factor' is 0"));
  EXPECT_THAT(error({{"rope_type", "linear"}, {"factor", "2"}}), HasSubstr("RoPE parameter 'factor' is not a number"));
  EXPECT_THAT(error({{"rope_type", "linear"}, {"factr", 2}}),
              AllOf(HasSubstr("RoPE parameter 'factr' is not known"), HasSubstr("did you mean 'factor'?")));
  EXPECT_THAT(error({{"rope_type", "llama3"}, {"factor", 2}}), HasSubstr("'low_freq_factor' is missing"));
  EXPECT_THAT(error({{"rope_type", "llama3"}, {"factor", 2}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}),
              HasSubstr("high_freq_factor 4 is not above low_freq_factor 4"));
  EXPECT_THAT(error({{"rope_type", "yarn"}, {"factor", 1e9}}), HasSubstr("take a smaller factor"));
  EXPECT_THAT(error({{"full_attention", {{"rope_type", "default"}}}}), HasSubstr("'full_attention' is not known"));
  EXPECT_THAT(error({{"mrope_section", {16, 24, 24}}, {"rope_type", "default"}}), HasSubstr("'mrope_section'"));
  EXPECT_THAT(error({1, 2}), HasSubstr("rope_scaling is not an object"));
}

TEST_F(RopeParametersTest, TheUsersRopeScalingReplacesTheFiles) {
  json config = config_of("LlamaForCausalLM");
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  write_folder(config, folder_tensors({}));
  const DecoderSpec yarn = Checkpoint(folder_, {{"rope_type", "yarn"}, {"factor", 4.0}}).spec();
  EXPECT_EQ(yarn.rope_scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn.rope_original_max_positions, 64);
  EXPECT_EQ(yarn.max_positions, 256);
  EXPECT_EQ(yarn.rope_base, 500.0);
  const DecoderSpec none = Checkpoint(folder_, {{"rope_type", "default"}}).spec();
  EXPECT_EQ(none.rope_scaling, RopeScaling::kNone);
  EXPECT_EQ(none.max_positions, 64);
  EXPECT_THAT(error_of([&] {
                Checkpoint(folder_, {{"rope_type", "yarn"}});
              }),
              AllOf(HasSubstr("'factor' is missing"), HasSubstr("model option 'rope_scaling'")));
}

TEST_F(RopeParametersTest, GgufRope) {
  const auto spec = [&](const std::map<std::string, TinyValue>& values) {
    TinyGguf file = gguf_of("llama", folder_tensors({}));
    for (const auto& [key, value] : values) file.metadata["llama.rope." + key] = value;
    return Checkpoint(write_gguf(file)).spec();
  };
  EXPECT_EQ(spec({{"scaling.type", std::string("none")}}).rope_scaling, RopeScaling::kNone);
  const DecoderSpec linear = spec({{"scaling.type", std::string("linear")}, {"scaling.factor", 4.F}});
  EXPECT_EQ(linear.rope_scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear.rope_scaling_factor, 4.0);
  EXPECT_EQ(spec({{"scale_linear", 2.F}}).rope_scaling_factor, 2.0);
  const DecoderSpec yarn = spec({{"scaling.type", std::string("yarn")},
                                 {"scaling.factor", 4.F},
                                 {"scaling.original_context_length", std::uint32_t{32}}});
  EXPECT_EQ(yarn.rope_scaling, RopeScaling::kYarn);
  EXPECT_EQ(yarn.rope_original_max_positions, 32);
  EXPECT_EQ(yarn.max_positions, 128);
  EXPECT_EQ(yarn.rope_attention_factor, 0.0);
  EXPECT_NEAR(spec({{"scaling.type", std::string("yarn")}, {"scaling.factor", 4.F}, {"scaling.attn_factor", 2.F}})
                  .rope_attention_factor,
              2 * (0.1 * std::log(4.0) + 1), 1e-9);
  EXPECT_THAT(gguf_error("rope.scaling.type", std::string("longrope")), HasSubstr("RoPE scaling 'longrope'"));
}

TEST_F(RopeParametersTest, GgufFrequencyDivisors) {
  TinyGguf file = gguf_of("llama", folder_tensors({}));
  file.tensors["rope_freqs.weight"] = {{3}, {1, 2, 8}};
  const Checkpoint checkpoint(write_gguf(file));
  checkpoint.check_weights();
  EXPECT_EQ(checkpoint.spec().rope_scaling, RopeScaling::kLlama3);
  EXPECT_EQ(checkpoint.spec().rope_frequency_divisors, (std::vector<double>{1, 2, 8}));
  file.tensors["rope_freqs.weight"].values[1] = 0;
  EXPECT_THAT(gguf_error(file), HasSubstr("'rope_freqs.weight' holds 0"));
  file.tensors["rope_freqs.weight"] = {{2}, {1, 2}};
  EXPECT_THAT(gguf_error(file), HasSubstr("'rope_freqs.weight' is not a row of 3 numbers"));
  file.tensors["rope_freqs.weight"] = {{3}, {1, 2, 8}};
  file.metadata["llama.rope.scaling.type"] = std::string("linear");
  file.metadata["llama.rope.scaling.factor"] = 2.F;
  EXPECT_THAT(gguf_error(file), HasSubstr("both linear RoPE scaling and rope_freqs.weight"));
}

}  // namespace
}  // namespace kvc
