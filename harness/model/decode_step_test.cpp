// Judge: Decoder::forward(), which decoder_test.cpp holds against naive loops.
#include "harness/model/decode_step.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "harness/attention/ragged_attention_gpu.h"
#include "harness/core/error.h"
#include "harness/model/generate_by.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

struct Variant {
  const char* name;
  at::ScalarType dtype;
  std::function<void(DecoderSpec&)> change;
};

class DecodeSteps : public ::testing::TestWithParam<Variant> {
 protected:
  static Decoder decoder() {
    DecoderSpec spec = tiny_spec();
    GetParam().change(spec);
    return {spec, random_weights(spec, 11, GetParam().dtype)};
  }
};

// Texts of different lengths; then steps, on the way of which the tails grow and one sequence ends.
TEST_P(DecodeSteps, HaveTheBitsOfTheForwardPass) {
  const Decoder model = decoder();
  const KvCache prefix = ragged_prefix(GetParam().dtype, 70);
  Tails tails = Tails::behind(prefix, 3, 8), same = Tails::behind(prefix, 3, 8);
  const PackedTokens texts = PackedTokens::pack({{5, 6}, {9}, {1, 2, 3, 4}});
  (void)model.forward(texts, prefix, tails);
  (void)model.forward(texts, prefix, same);
  DecodeStep step(model, prefix, DecodeStep::Way::kEachTime);
  std::vector<int64_t> tokens = {7, 8, 9};
  for (int64_t i = 0; i < 14; ++i) {
    if (i == 4) {
      tails.reserve(20);
      same.reserve(20);
    }
    if (i == 9) {
      tails = tails.select({0, 2});
      same = same.select({0, 2});
      tokens.pop_back();
    }
    std::vector<std::vector<int64_t>> alone;
    for (int64_t& token : tokens) alone.push_back({token = (token * 13 + i) % 300});
    const at::Tensor got = step.logits(tokens, tails);
    const at::Tensor want = model.logits(model.forward(PackedTokens::pack(alone), prefix, same));
    EXPECT_TRUE(at::equal(got, want)) << "step " << i;
    EXPECT_EQ(tails.lengths(), same.lengths());
  }
  for (int64_t l = 0; l < 2; ++l) {
    for (int64_t b = 0; b < 2; ++b) {
      const int64_t length = tails.lengths()[static_cast<size_t>(b)];
      EXPECT_TRUE(at::equal(tails.keys(l)[b].narrow(1, 0, length), same.keys(l)[b].narrow(1, 0, length)));
      EXPECT_TRUE(at::equal(tails.values(l)[b].narrow(1, 0, length), same.values(l)[b].narrow(1, 0, length)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, DecodeSteps,
    ::testing::Values(Variant{"Llama", at::kFloat, [](DecoderSpec&) {}},
                      Variant{"LlamaBfloat16", at::kBFloat16, [](DecoderSpec&) {}},
                      // Neither has loops of its own: LibTorch's operations, as on a GPU.
                      Variant{"LlamaFloat16", at::kHalf, [](DecoderSpec&) {}},
                      Variant{"Qwen3Float64", at::kDouble, [](DecoderSpec& s) { s.qk_norm = true; }},
                      Variant{"Qwen2", at::kFloat, [](DecoderSpec& s) { s.attention_bias = true; }},
                      Variant{"Qwen3", at::kFloat,
                              [](DecoderSpec& s) {
                                s.qk_norm = true;
                                s.tied_embeddings = false;
                              }},
                      Variant{"Yarn", at::kFloat,
                              [](DecoderSpec& s) {
                                s.rope_scaling = RopeScaling::kYarn;
                                s.rope_scaling_factor = 4;
                                s.rope_original_max_positions = 64;
                              }}),
    [](const auto& test) { return test.param.name; });

// Answers that outgrow their first tails, some of which end before the others.
TEST(DecodeStep, WritesTheAnswersOfTheForwardPass) {
  const Model model = tiny_model(3);
  std::vector<int64_t> document;
  for (int64_t i = 0; i < 40; ++i) document.push_back((i * i * 5 + i * 9 + 9) % 256);
  const KvCache prefix = model.decoder().prefill(document);
  std::vector<std::vector<int64_t>> prompts;
  std::vector<std::uint64_t> seeds;
  for (size_t b = 0; b < 16; ++b) {
    prompts.emplace_back(document.begin(), document.begin() + static_cast<std::ptrdiff_t>(1 + b * 7 % 19));
    seeds.push_back(1000 + b);
  }
  for (const double temperature : {0.0, 1.3}) {
    const DecodeSettings settings{.max_new_tokens = 60, .temperature = temperature};
    const auto want = generate(model, prefix, prompts, settings, seeds);
    const auto got = generate_by(DecodeStep::Way::kEachTime, model, {{prefix, prompts, seeds}}, settings).at(0);
    size_t most = 0, ended = 0;
    for (size_t b = 0; b < prompts.size(); ++b) {
      EXPECT_EQ(got[b].tokens, want[b].tokens) << b;
      EXPECT_EQ(got[b].stop_reason, want[b].stop_reason);
      most = std::max(most, got[b].tokens.size());
      ended += got[b].stop_reason == "end" ? 1 : 0;
    }
    EXPECT_EQ(most, 60U);
    if (temperature > 0) {
      EXPECT_GT(ended, 0U) << "no sequence ended: the test does not test leaving";
    }
  }
}

// Rows that end one after the other: a batch of 64 changes seven times, not 64 times, and never holds a row in vain
// once half of it is.
TEST(DecodeStep, EndedRowsAreDroppedAtHalvings) {
  std::vector<bool> going(64, true);
  size_t changes = 0;
  for (size_t ended = 0; ended < 64; ++ended) {
    going[std::find(going.begin(), going.end(), true) - going.begin()] = false;
    const std::vector<int64_t> kept = rows_to_keep(going, true);
    EXPECT_LT(kept.size(), 2 * static_cast<size_t>(std::count(going.begin(), going.end(), true)) + 1);
    if (kept.size() == going.size()) continue;
    ++changes;
    std::vector<bool> left;
    for (const int64_t row : kept) left.push_back(going[static_cast<size_t>(row)]);
    going = left;
  }
  EXPECT_TRUE(going.empty());
  EXPECT_EQ(changes, 7U);
  EXPECT_EQ(rows_to_keep({true, false, true}, false), (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(rows_to_keep({true, false, true}, true), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(rows_to_keep({false, false, true}, true), (std::vector<int64_t>{2}));
}

// Answers end where the model's positions do, at different times, while others go on beside them.
TEST(DecodeStep, EndedRowsNeedNoPositions) {
  const Model model = tiny_model(3, at::kFloat, 64);
  std::vector<int64_t> document;
  for (int64_t i = 0; i < 40; ++i) document.push_back((i * i * 5 + i * 9 + 9) % 256);
  const KvCache prefix = model.decoder().prefill(document);
  const std::vector<std::vector<int64_t>> prompts = {
      std::vector<int64_t>(20, 7), std::vector<int64_t>(23, 8), {9, 10}, std::vector<int64_t>(24, 11), {12}};
  const DecodeSettings settings{.max_new_tokens = 100};
  const auto want = generate(model, prefix, prompts, settings, {});
  const auto got = generate_by(DecodeStep::Way::kEachTime, model, {{prefix, prompts, {}}}, settings).at(0);
  for (size_t b = 0; b < prompts.size(); ++b) EXPECT_EQ(got[b].tokens, want[b].tokens) << b;
  EXPECT_LT(want[3].tokens.size(), want[4].tokens.size()) << "no row ends before others: the test tests nothing";
}

TEST(DecodeStep, GraphsAreRefusedOnTheCpuBeforeWeightsAreRead) {
  ModelConfig config;
  config.path = KVC_SOURCE_DIR "/models/smollm2-135m-instruct.gguf";
  config.device = "cpu";
  config.decode_graphs = true;
  EXPECT_THAT([&] { (void)Model::load(config); },
              ThrowsMessage<Error>(HasSubstr("decode_graphs is on, but the model is on the CPU")));
}

TEST(DecodeStep, RefusesWhatItCannotDo) {
  const Decoder model(tiny_spec(), random_weights(tiny_spec(), 11));
  const KvCache prefix = ragged_prefix(at::kFloat);
  EXPECT_THAT([&] { DecodeStep(model, prefix, DecodeStep::Way::kGraph); },
              ThrowsMessage<Error>(HasSubstr("the model is on the CPU")));
  DecodeStep step(model, prefix, DecodeStep::Way::kEachTime);
  Tails tails = Tails::behind(prefix, 1, 2);
  (void)step.logits({3}, tails);
  EXPECT_THAT([&] { (void)step.logits({300'000}, tails); }, ThrowsMessage<Error>(HasSubstr("vocabulary")));
  EXPECT_THAT([&] { (void)step.logits({3, 4}, tails); }, ThrowsMessage<Error>(HasSubstr("2 tokens for 1 sequences")));
  EXPECT_EQ(tails.lengths(), (std::vector<int64_t>{1}));
  (void)step.logits({3}, tails);
  EXPECT_THAT([&] { (void)step.logits({3}, tails); }, ThrowsMessage<Error>(HasSubstr("2 of 2 entries used")));
}

TEST(DecodeStep, PositionsEndWhereTheModelsDo) {
  DecoderSpec spec = tiny_spec();
  spec.max_positions = 92;
  const Decoder model(spec, random_weights(spec, 11));
  const KvCache prefix = ragged_prefix(at::kFloat);
  DecodeStep step(model, prefix, DecodeStep::Way::kEachTime);
  Tails tails = Tails::behind(prefix, 1, 9);
  (void)step.logits({3}, tails);
  (void)step.logits({3}, tails);
  EXPECT_THAT([&] { (void)step.logits({3}, tails); }, ThrowsMessage<Error>(HasSubstr("position 93")));
}

TEST(CudaGraph, WithoutCudaNothingIsRecorded) {
  EXPECT_EQ(CudaGraph::available(), gpu::has_kernels());
  CudaGraph graph;
  EXPECT_THROW(graph.replay(), Error);
  if (CudaGraph::available()) return;
  EXPECT_THROW(graph.record(at::kCPU, [] {}), Error);
}

}  // namespace
}  // namespace kvc
