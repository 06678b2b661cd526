// What a document says about the heads: the probe against whole passes, weights against the loss they stand for.
#include "harness/head_budgets/head_curves.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "harness/core/error.h"
#include "harness/model/continuation.h"
#include "harness/testing/method_scene.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::vector<ProbeText> texts(const Scene& scene) {
  return {{make_question_prompt(scene.model, "What lies in the lake?"), {65, 66, 67, 257}},
          {make_question_prompt(scene.model, "Who is Mara?"), {80}}};
}

Document lake() {
  Document document{"lake", "lake", kArticle, {}};
  for (const char* text : {"What lies on its ground?", "Who is Mara?", "How many divers?"}) {
    document.questions.push_back({.id = text,
                                  .text = text,
                                  .options = {},
                                  .gold_option = {},
                                  .gold_answer = "?",
                                  .answer_prefix = "",
                                  .extra = Json::object()});
  }
  return document;
}

std::unique_ptr<CompactionMethod> method(const std::string& name) {
  return Registry<CompactionMethod>::instance().create(name, Json::object());
}

// KL through the continuation's own pass and float64 loops over the vocabulary.
double naive_kl(const Scene& scene, const KvCache& cache, const std::vector<ProbeText>& list) {
  std::vector<std::vector<int64_t>> prompts;
  std::vector<Continuation> answers;
  for (const ProbeText& text : list) {
    answers.push_back({static_cast<int64_t>(prompts.size()), text.answer});
    prompts.push_back(text.prompt);
  }
  const auto distributions = [&](const KvCache& of) {
    const at::Tensor hidden = at::cat(continuation_hidden(scene.model, of, prompts, answers));
    return scene.model.decoder().logits(hidden).to(at::kDouble).contiguous();
  };
  const at::Tensor full = distributions(scene.full), other = distributions(cache);
  const int64_t n = full.size(0), vocab = full.size(1);
  double sum = 0;
  for (int64_t row = 0; row < n; ++row) {
    const double* p = full.const_data_ptr<double>() + row * vocab;
    const double* q = other.const_data_ptr<double>() + row * vocab;
    double p_sum = 0, q_sum = 0;
    for (int64_t v = 0; v < vocab; ++v) {
      p_sum += std::exp(p[v]);
      q_sum += std::exp(q[v]);
    }
    for (int64_t v = 0; v < vocab; ++v)
      sum += std::exp(p[v]) / p_sum * ((p[v] - std::log(p_sum)) - (q[v] - std::log(q_sum)));
  }
  return sum / static_cast<double>(n);
}

TEST(AnswerProbe, KlIsThatOfPlainLoops) {
  const Scene& scene = Scene::of(at::kFloat);
  const AnswerProbe probe(scene.model, scene.full, texts(scene));
  EXPECT_EQ(probe.n_answer_tokens(), 5);
  EXPECT_EQ(probe.read(scene.full).kl, 0);
  for (const int64_t kept : {0, 10, 60}) {
    const std::vector<Compaction> made = scene.compact(*method("streaming_llm"), {every_head(kept)});
    const double naive = naive_kl(scene, made[0].cache, texts(scene));
    EXPECT_GT(naive, 0);
    EXPECT_NEAR(probe.read(made[0].cache).kl, naive, 1e-5 * naive + 1e-9);
  }
}

// A pass from a layer on is the end of the whole pass.
TEST(AnswerProbe, APassFromALayerOnEqualsAWholeOne) {
  const Scene& scene = Scene::of(at::kFloat);
  const AnswerProbe probe(scene.model, scene.full, texts(scene));
  const KvCache small = std::move(scene.compact(*method("attention_matching"), {every_head(12)})[0].cache);
  const AnswerProbe::Stream stream = probe.read(small);
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    std::vector<LayerKv> layers, others;
    for (int64_t i = 0; i < kLayers; ++i) {
      layers.push_back(i == layer ? small.layer(i) : scene.full.layer(i));
      others.push_back(i == layer ? scene.full.layer(i) : small.layer(i));
    }
    const KvCache one_small(std::move(layers), scene.full.next_position());
    const KvCache one_full(std::move(others), scene.full.next_position());
    EXPECT_EQ(probe.kl(scene.full, probe.full(), layer, small.layer(layer)), probe.read(one_small).kl);
    EXPECT_EQ(probe.kl(small, stream, layer, scene.full.layer(layer)), probe.read(one_full).kl);
  }
  EXPECT_EQ(probe.read(small).kl, stream.kl);  // the passes between left nothing behind
}

TEST(HeadCurves, ErrorsFallAndWeightsAddUp) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto source = Registry<QuerySource>::instance().create("repeat_prefill", Json::object());
  CurveSettings settings;
  settings.fractions = {0.05, 0.2, 0.5, 0.9, 1};
  settings.baselines = {0.2, 0.5};
  int64_t passes = 0;
  const HeadCurves curves = measure_head_curves(scene.model, lake(), *method("attention_matching"), source.get(),
                                                settings, 3, [&](int64_t n) { passes = n; });
  EXPECT_EQ(passes, 2 * 2 * kLayers * kKvHeads);
  ASSERT_EQ(curves.errors.size(), static_cast<size_t>(kLayers * kKvHeads));
  for (const std::vector<double>& errors : curves.errors) {
    ASSERT_EQ(errors.size(), 6u);
    EXPECT_GT(errors[0], errors[4]);
    EXPECT_GT(errors[1], errors[4]);
    EXPECT_LT(errors[5], 1e-6);  // everything kept
  }
  for (const HeadCurves::Baseline& baseline : curves.baselines) {
    double alone = 0, weights = 0;
    for (size_t h = 0; h < baseline.alone.size(); ++h) {
      EXPECT_GE(baseline.alone[h], 0);
      alone += baseline.alone[h];
      weights += (baseline.alone[h] + baseline.last[h]) / 2;
    }
    EXPECT_GT(baseline.together, 0);
    // The mean of first and last marginal is additive to third order, the first alone is not.
    EXPECT_NEAR(weights / baseline.together, 1, 0.1);
    EXPECT_LE(std::abs(weights - baseline.together), std::abs(alone - baseline.together));
  }
  EXPECT_GT(curves.baselines[0].together, curves.baselines[1].together);

  // The same through text, and again.
  const HeadCurves read = HeadCurves::from_json(Json::parse(curves.to_json().dump()), settings, "test");
  EXPECT_EQ(read.to_json(), curves.to_json());
  const HeadCurves again =
      measure_head_curves(scene.model, lake(), *method("attention_matching"), source.get(), settings, 3);
  EXPECT_EQ(again.to_json(), curves.to_json());
}

TEST(HeadCurves, ADocumentWithoutQuestionsIsRefused) {
  const Scene& scene = Scene::of(at::kFloat);
  Document document = lake();
  document.questions.clear();
  EXPECT_THAT([&] { measure_head_curves(scene.model, document, *method("streaming_llm"), nullptr, {}, 0); },
              ThrowsMessage<Error>(HasSubstr("has no question")));
}

// Two heads, by hand.
TEST(LossCurves, AreWeightsTimesErrors) {
  CurveSettings settings;
  settings.fractions = {0.1, 0.4};
  settings.baselines = {0.1};
  HeadCurves a, b;
  a.errors = {{1.0, 0.5, 0.125}, {0.0, 0.0, 0.0}};
  b.errors = {{3.0, 0.5, 0.875}, {0.0, 0.0, 0.0}};
  a.baselines = {{1, {0.2, 0.1}, {0.4, 0.1}}};
  b.baselines = {{1, {0.2, 0.1}, {0.0, 0.1}}};
  const std::vector<LossCurve> curves = loss_curves({a, b}, settings);
  ASSERT_EQ(curves.size(), 2u);
  EXPECT_EQ(curves[0].fractions, (std::vector<double>{0, 0.1, 0.4}));
  // Mean errors 2, 0.5, 0.5; weight (0.2 + 0.2) / 2 at an error of 0.5.
  EXPECT_THAT(curves[0].losses,
              ::testing::ElementsAre(::testing::DoubleNear(0.8, 1e-12), ::testing::DoubleNear(0.2, 1e-12),
                                     ::testing::DoubleNear(0.2, 1e-12)));
  EXPECT_EQ(curves[1].losses, (std::vector<double>{0, 0, 0}));  // without error no loss, whatever the passes said

  // With a second baseline the curve goes through both measured weights; a negative last marginal counts as 0.
  settings.baselines = {0.1, 0.4};
  a.errors[0] = {1.0, 0.5, 0.25};
  a.baselines = {{1, {0.2, 0}, {0.2, 0}}, {1, {0.06, 0}, {-0.5, 0}}};
  const std::vector<LossCurve> both = loss_curves({a}, settings);
  EXPECT_NEAR(both[0].losses[1], 0.2, 1e-12);
  EXPECT_NEAR(both[0].losses[2], 0.03, 1e-12);
}

TEST(HeadCurves, BrokenJsonIsRefused) {
  CurveSettings settings;
  settings.fractions = {0.1};
  settings.baselines = {0.1};
  const Json fine = Json::parse(R"({"answer_tokens": 3, "errors": [[1, 0.5]],
                                    "baselines": [{"together": 1, "alone": [0.1], "last": [0.1]}]})");
  EXPECT_NO_THROW(HeadCurves::from_json(fine, settings, "test"));
  for (const char* patch : {R"({"errors": null})", R"({"errors": []})", R"({"errors": [[1]]})",
                            R"({"errors": [[1, "x"]]})", R"({"errors": [[1, 0.5], [1, 0.5]]})", R"({"baselines": []})",
                            R"({"baselines": [1]})", R"({"baselines": [{"alone": [0.1], "last": [0.1]}]})",
                            R"({"baselines": [{"together": 1, "alone": [0.1, 1], "last": [0.1]}]})"}) {
    Json broken = fine;
    broken.merge_patch(Json::parse(patch));
    EXPECT_THROW(HeadCurves::from_json(broken, settings, "test"), Error) << patch;
  }
  EXPECT_THROW(HeadCurves::from_json(3, settings, "test"), Error);
}

}  // namespace
}  // namespace kvc
