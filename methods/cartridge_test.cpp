// The trained cache: its forward pass and gradients against the decoder and finite differences, then the method.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness/core/error.h"
#include "harness/math/adam.h"
#include "harness/testing/checks.h"
#include "harness/testing/method_scene.h"
#include "methods/parts/cache_training.h"
#include "methods/training_texts.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

const std::vector<int64_t> kText = {7, 250, 33, 33, 91, 4, 128, 260, 61, 17, 0, 199};

at::Tensor normal(std::vector<int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

// Heads of different lengths with a template of 3 and 2 entries around, biases in the last layer. Half of the logits'
// usual size, so that attention has a shape.
KvCache ragged_cache(const DecoderSpec& spec, at::ScalarType dtype, int64_t next_position) {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < spec.n_layers; ++l) {
    std::vector<at::Tensor> keys, values, bias;
    for (int64_t h = 0; h < spec.n_kv_heads; ++h) {
      const int64_t length = 5 + 4 * h + l;
      const auto seed = static_cast<std::uint64_t>(100 * l + 10 * h);
      keys.push_back(normal({length, spec.head_dim}, seed + 1).to(dtype));
      values.push_back(normal({length, spec.head_dim}, seed + 2).to(dtype));
      bias.push_back(l + 1 == spec.n_layers ? normal({length}, seed + 3) : at::Tensor());
    }
    layers.push_back(pack_heads(keys, values, bias));
  }
  return {std::move(layers), next_position};
}

struct Family {
  std::string name;
  std::function<void(DecoderSpec&)> change;
};

std::vector<Family> families() {
  return {
      {"llama", [](DecoderSpec&) {}},
      {"llama3_scaled",
       [](DecoderSpec& s) {
         s.rope_scaling = RopeScaling::kLlama3, s.rope_scaling_factor = 8, s.rope_original_max_positions = 64;
       }},
      {"llama_all_biases", [](DecoderSpec& s) { s.attention_bias = s.attention_output_bias = s.mlp_bias = true; }},
      {"linear_untied",
       [](DecoderSpec& s) {
         s.rope_scaling = RopeScaling::kLinear, s.rope_scaling_factor = 4, s.tied_embeddings = false;
       }},
      {"qwen2", [](DecoderSpec& s) { s.attention_bias = true, s.rope_base = 1e6; }},
      {"qwen2_yarn",
       [](DecoderSpec& s) {
         s.attention_bias = true;
         s.rope_scaling = RopeScaling::kYarn, s.rope_scaling_factor = 4, s.rope_original_max_positions = 64;
       }},
      {"qwen3", [](DecoderSpec& s) { s.qk_norm = true, s.rms_norm_eps = 1e-6; }},
      {"one_head_a_group", [](DecoderSpec& s) { s.n_kv_heads = s.n_query_heads; }},
      {"dynamic",
       [](DecoderSpec& s) {
         s.rope_scaling = RopeScaling::kDynamic, s.rope_scaling_factor = 2;
         s.rope_original_max_positions = 64, s.rope_dynamic_positions = 128;
       }},
  };
}

Decoder decoder_of(const Family& family, at::ScalarType dtype) {
  DecoderSpec spec = tiny_spec(256);
  family.change(spec);
  return {spec, random_weights(spec, 5, dtype)};
}

// Largest difference of the logits over their largest magnitude.
double forward_error(const Decoder& decoder, at::ScalarType dtype) {
  const KvCache cache = ragged_cache(decoder.spec(), dtype, 70);
  Tails tails = Tails::behind(cache, 1, 16);
  const at::Tensor expected = decoder.logits(decoder.forward(PackedTokens::single(kText), cache, tails));

  const DifferentiableDecoder differentiable(decoder, dtype);
  at::Tensor hidden = differentiable.embed(kText);
  for (int64_t l = 0; l < decoder.spec().n_layers; ++l) {
    std::vector<HeadEntries> heads;
    for (int64_t h = 0; h < decoder.spec().n_kv_heads; ++h) {
      const LayerKv& layer = cache.layer(l);
      heads.push_back({layer.head_keys(h), layer.head_values(h), layer.head_bias(h)});
    }
    hidden = differentiable.run_layer(l, hidden, heads, cache.next_position());
  }
  const at::Tensor logits = decoder.logits(differentiable.final_norm(hidden));
  return ((logits - expected).abs().max() / expected.abs().max()).item<double>();
}

TEST(DifferentiableDecoder, AgreesWithTheDecoderInEveryFamily) {
  for (const Family& family : families()) {
    EXPECT_LT(forward_error(decoder_of(family, at::kFloat), at::kFloat), 1e-5) << family.name;
    EXPECT_LT(forward_error(decoder_of(family, at::kBFloat16), at::kBFloat16), 5e-2) << family.name;
  }
}

TrainingText some_text(const DecoderSpec& spec) {
  return {kText, normal({static_cast<int64_t>(kText.size()), spec.hidden_size}, 77)};
}

// Central differences along random directions and single numbers, in float64.
TEST(CacheTraining, GradientsAreThoseOfFiniteDifferences) {
  for (const Family& family : families()) {
    const Decoder decoder = decoder_of(family, at::kFloat);
    const KvCache cache = ragged_cache(decoder.spec(), at::kFloat, 70);
    const TrainingText text = some_text(decoder.spec());
    CacheTraining training(decoder, cache, {3, 2}, at::kDouble);
    const double loss = training.accumulate(text, 1.0);
    EXPECT_NEAR(loss, training.loss(text), 1e-12);
    ASSERT_EQ(training.parameters().size(), static_cast<size_t>(2 * decoder.spec().n_layers));
    std::uint64_t seed = 0;
    for (const at::Tensor& parameter : training.parameters()) {
      ASSERT_EQ(parameter.scalar_type(), at::kDouble);
      const at::Tensor direction = normal(parameter.sizes().vec(), ++seed).to(at::kDouble);
      const auto loss_at = [&](double h) {
        const at::Tensor was = parameter.detach().clone();
        parameter.detach().add_(direction, h);
        const double moved = training.loss(text);
        parameter.detach().copy_(was);
        return moved;
      };
      const double expected = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5;
      const double gradient = (parameter.grad() * direction).sum().item<double>();
      EXPECT_NEAR(gradient, expected, 1e-7 * (1 + std::abs(expected))) << family.name << ", parameter " << seed;
      EXPECT_GT(std::abs(expected), 1e-6) << family.name << ", parameter " << seed;
    }
  }
}

TEST(CacheTraining, GradientsOfSeveralTextsAddWithTheirWeights) {
  const Decoder decoder = decoder_of(families()[0], at::kFloat);
  const KvCache cache = ragged_cache(decoder.spec(), at::kFloat, 70);
  const TrainingText text = some_text(decoder.spec());
  CacheTraining once(decoder, cache, {3, 2}, at::kDouble), twice(decoder, cache, {3, 2}, at::kDouble);
  once.accumulate(text, 1.0);
  twice.accumulate(text, 0.25);
  twice.accumulate(text, 0.75);
  for (size_t i = 0; i < once.parameters().size(); ++i) {
    EXPECT_TRUE(at::allclose(once.parameters()[i].grad(), twice.parameters()[i].grad(), 1e-10, 1e-14));
  }
}

// Inputs as the sweep has them: made in InferenceMode, which it is still in.
TEST(CacheTraining, WorksOnWhatInferenceModeMade) {
  const c10::InferenceMode inference;
  const Decoder decoder = decoder_of(families()[0], at::kFloat);
  const KvCache cache = ragged_cache(decoder.spec(), at::kFloat, 70);
  CacheTraining training(decoder, cache, {3, 2}, at::kFloat);
  training.accumulate(some_text(decoder.spec()), 1.0);
  for (const at::Tensor& parameter : training.parameters()) {
    EXPECT_GT(parameter.grad().abs().max().item<double>(), 0);
  }
}

TEST(CacheTraining, ResultIsTheStartUntilAStepIsMade) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Decoder decoder = decoder_of(families()[0], dtype);
    const KvCache cache = ragged_cache(decoder.spec(), dtype, 70);
    const CacheTraining training(decoder, cache, {3, 2}, dtype);
    EXPECT_TRUE(same_bits(training.result(), cache));
  }
}

TEST(Adam, IsThePublishedRule) {
  at::Tensor x = at::tensor({1.0, -2.0, 0.5}, at::kDouble).requires_grad_(true);
  Adam adam({x});
  std::vector<double> judge = {1.0, -2.0, 0.5}, m(3, 0), v(3, 0);
  for (int t = 1; t <= 20; ++t) {
    (x * x * x).sum().backward();  // gradient 3 x^2
    adam.step(0.1);
    EXPECT_EQ(x.grad().abs().max().item<double>(), 0);
    for (size_t i = 0; i < 3; ++i) {
      const double g = 3 * judge[i] * judge[i];
      m[i] = 0.9 * m[i] + 0.1 * g, v[i] = 0.999 * v[i] + 0.001 * g * g;
      judge[i] -= 0.1 * (m[i] / (1 - std::pow(0.9, t))) / (std::sqrt(v[i] / (1 - std::pow(0.999, t))) + 1e-8);
      EXPECT_NEAR(x[static_cast<int64_t>(i)].item<double>(), judge[i], 1e-12);
    }
  }
}

// --- texts -----------------------------------------------------------------------------------------------------------

TextSource source_of(const Scene& scene) {
  return {scene.model, scene.context, scene.full, 3};
}

TEST(TrainingTexts, RepeatedPartsTileTheArticle) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto texts = repeated_texts(source_of(scene), 160);
  EXPECT_GT(texts.size(), 2U);
  std::string joined;
  for (const auto& text : texts) {
    EXPECT_LE(text.size(), 160U);
    const std::string all = scene.model.tokenizer().decode(text);
    joined += all.substr(all.rfind("assistant\n") + 10);
  }
  EXPECT_EQ(joined, kArticle);
  EXPECT_THAT(scene.model.tokenizer().decode(texts[1]), HasSubstr("from these words on: "));
}

TEST(TrainingTexts, SelfStudyIsSampledFromTheFullCacheAndReproducible) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto texts = self_study_texts(source_of(scene), 6, 160);
  EXPECT_EQ(texts, self_study_texts(source_of(scene), 6, 160));
  ASSERT_THAT(texts, SizeIs(6));
  for (const auto& text : texts) EXPECT_LE(text.size(), 160U);
  EXPECT_NE(texts[0], texts[4]);  // the same request, another answer
  EXPECT_THAT(scene.model.tokenizer().decode(texts[0]), HasSubstr("Summarize the main points of the context."));
}

TEST(TrainingTexts, TooFewPositionsAreNamed) {
  const Model model = tiny_model(11, at::kFloat, 330);
  const Context context = make_context(model, kArticle);
  const KvCache full = model.decoder().prefill(context.tokens);
  ASSERT_GT(full.next_position(), 330 - 64);
  EXPECT_THAT(error_of(ErrorKind::kData,
                       [&] {
                         repeated_texts({model, context, full, 1}, 256);
                       }),
              HasSubstr("of the model's 330 positions are left"));
}

// The student with the teacher's cache makes no mistakes.
TEST(TrainingTexts, TheFullCacheHasNoLoss) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto texts = with_teacher(source_of(scene), repeated_texts(source_of(scene), 160));
  const CacheTraining training(scene.model.decoder(), scene.full, {scene.context.prefix_len, scene.context.suffix_len},
                               at::kFloat);
  for (const TrainingText& text : texts) EXPECT_LT(std::abs(training.loss(text)), 1e-5);
}

// --- the method ------------------------------------------------------------------------------------------------------

std::unique_ptr<CompactionMethod> method(const std::string& name, const Json& options = Json::object()) {
  return Registry<CompactionMethod>::instance().create(name, options);
}

double mean_kl(const at::Tensor& reference, const at::Tensor& other) {
  const at::Tensor p = at::log_softmax(reference.to(at::kDouble), -1), q = at::log_softmax(other.to(at::kDouble), -1);
  return (p.exp() * (p - q)).sum(-1).mean().item<double>();
}

const Json kToy = {
    {"text", "repeat"}, {"steps", 40}, {"learning_rate", 0.1}, {"batch_tokens", 320}, {"text_tokens", 160}};

TEST(Cartridge, LowersItsLossAndBeatsRandomKeysAtEqualBytes) {
  const Scene& scene = Scene::of(at::kFloat);
  const std::vector<HeadBudget> budgets = {every_head(16)};
  const Compaction trained = std::move(scene.compact(*method("cartridge", kToy), budgets)[0]);
  const double before = trained.notes.at("loss_before"), after = trained.notes.at("loss_after");
  EXPECT_LT(after, 0.4 * before);
  ASSERT_EQ(trained.notes.at("loss_curve").size(), 40U);
  EXPECT_LT(trained.notes.at("loss_curve").back().get<double>(), trained.notes.at("loss_curve").front().get<double>());

  // On a question that is none of the texts.
  const at::Tensor full = scene.logits(scene.full);
  const double kl = mean_kl(full, scene.logits(trained.cache));
  for (const std::uint64_t seed : {1, 2, 3}) {
    const Compaction random = std::move(scene.compact(*method("random_keys"), budgets, seed)[0]);
    EXPECT_EQ(trained.cache.bytes(), random.cache.bytes());
    EXPECT_LT(kl, 0.9 * mean_kl(full, scene.logits(random.cache))) << "seed " << seed;
  }
}

TEST(Cartridge, KeepsTemplateAndPositionsInEveryHead) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Scene& scene = Scene::of(dtype);
    Json options = kToy;
    options["steps"] = 2;
    const KvCache cache = std::move(scene.compact(*method("cartridge", options), {ragged(scene)})[0].cache);
    const int64_t prefix = scene.context.prefix_len, suffix = scene.context.suffix_len;
    EXPECT_EQ(cache.next_position(), scene.full.next_position());
    for (int64_t l = 0; l < kLayers; ++l) {
      for (int64_t h = 0; h < kKvHeads; ++h) {
        const LayerKv &was = scene.full.layer(l), &is = cache.layer(l);
        EXPECT_EQ(is.head_len(h), prefix + suffix + ragged(scene).at(l, h));
        EXPECT_TRUE(same_bits(was.head_keys(h).narrow(0, 0, prefix), is.head_keys(h).narrow(0, 0, prefix)));
        EXPECT_TRUE(same_bits(was.head_values(h).narrow(0, was.head_len(h) - suffix, suffix),
                              is.head_values(h).narrow(0, is.head_len(h) - suffix, suffix)));
      }
    }
    EXPECT_FALSE(same_bits(cache.layer(0).head_keys(1).narrow(0, prefix, 37),
                           scene.full.layer(0).head_keys(1).narrow(0, prefix, 37)));
  }
}

TEST(Cartridge, EverythingKeptIsReturnedUntouched) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto made = scene.compact(*method("cartridge", kToy), {every_head(scene.source_len())});
  EXPECT_TRUE(same_bits(made[0].cache, scene.full));
}

TEST(Cartridge, TrainsOnFromAnotherMethodsResult) {
  const Scene& scene = Scene::of(at::kFloat);
  Json options = kToy;
  options["steps"] = 20;
  const Compaction plain = std::move(scene.compact(*method("cartridge", options), {every_head(16)})[0]);
  options["init"] = Json{{"method", "attention_matching"}, {"score", "max"}};
  const auto cartridge = method("cartridge", options);
  EXPECT_TRUE(cartridge->needs_queries());
  const Compaction made = std::move(scene.compact(*cartridge, {every_head(16)})[0]);
  EXPECT_LT(made.notes.at("loss_before").get<double>(), plain.notes.at("loss_before").get<double>());
  EXPECT_LT(made.notes.at("loss_after").get<double>(), made.notes.at("loss_before").get<double>());
  const auto start = scene.compact(*method("attention_matching", {{"score", "max"}}), {every_head(16)});
  for (int64_t l = 0; l < kLayers; ++l) {
    EXPECT_TRUE(same_bits(made.cache.layer(l).bias, start[0].cache.layer(l).bias));
    EXPECT_FALSE(same_bits(made.cache.layer(l).keys, start[0].cache.layer(l).keys));
  }
}

TEST(Cartridge, NothingKeptIsNothingTrained) {
  const Scene& scene = Scene::of(at::kFloat);
  Json options = kToy;
  options["steps"] = 1;
  const Compaction made = std::move(scene.compact(*method("cartridge", options), {every_head(0)})[0]);
  EXPECT_EQ(made.cache.n_entries(), kLayers * kKvHeads * scene.template_len());
  EXPECT_EQ(made.notes.at("loss_before"), made.notes.at("loss_after"));
}

TEST(Cartridge, ATrainingThatDivergesIsAnError) {
  const Scene& scene = Scene::of(at::kFloat);
  Json options = kToy;
  options["init"] = "random_keys";
  options["learning_rate"] = 10.0;
  options["steps"] = 1;
  const auto cartridge = method("cartridge", options);
  // Values of 1e38 overflow with the first step.
  KvCache huge = scene.full.clone();
  for (int64_t l = 0; l < kLayers; ++l) huge.layer(l).values.fill_(3e38);
  const Compactable compactable{scene.context.prefix_len, scene.context.suffix_len};
  EXPECT_THAT(
      error_of(ErrorKind::kUsage,
               [&] {
                 cartridge->compact({scene.model, scene.context, huge, compactable, nullptr, {every_head(9)}, 1});
               }),
      HasSubstr("lower the learning rate"));
}

TEST(Cartridge, NoStepsIsTheStart) {
  const Scene& scene = Scene::of(at::kFloat);
  Json options = kToy;
  options["steps"] = 0;
  const Compaction made = std::move(scene.compact(*method("cartridge", options), {every_head(16)})[0]);
  EXPECT_TRUE(same_bits(made.cache, scene.compact(*method("truncate"), {every_head(16)})[0].cache));
  EXPECT_EQ(made.notes.at("loss_before"), made.notes.at("loss_after"));
}

TEST(Cartridge, RefusesMethodsThatItCannotBeginWith) {
  const auto problem = [](const Json& options) {
    Problems problems;
    Registry<CompactionMethod>::instance().find("cartridge")->complete(options, "", problems);
    return problems.list().size() == 1 ? problems.list()[0].fact + " at " + problems.list()[0].where
                                       : std::to_string(problems.list().size()) + " problems";
  };
  EXPECT_THAT(problem({{"init", "cartridge"}}), HasSubstr("cannot begin with 'cartridge'"));
  EXPECT_THAT(problem({{"init", {{"method", "stacked"}}}}), HasSubstr("cannot begin with 'stacked'"));
  EXPECT_THAT(problem({{"init", "no_context"}}), HasSubstr("takes no target"));
  EXPECT_THAT(problem({{"init", {{"method", "h2o"}, {"recent_fractio", 0.5}}}}), HasSubstr("recent_fractio"));
  EXPECT_THAT(problem({{"init", Json(nullptr)}}), HasSubstr("without a name"));
  EXPECT_THAT(problem({{"text", "poems"}}), HasSubstr("poems"));
  EXPECT_THAT(problem({{"learning_rate", 0.0}}), HasSubstr("learning_rate"));
}

}  // namespace
}  // namespace kvc
