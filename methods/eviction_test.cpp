// Evictions: cases whose answer can be seen, and every score against float64 loops.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "harness/testing/method_scores.h"
#include "harness/testing/naive_methods_eviction.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// --- answers that can be seen

// Of ten queries nine weigh entry 0 with 0.6 and entry 1 with 0.4, one weighs entry 2 with 1.
HeadProblem nine_and_one() {
  const float root = std::sqrt(2.0F);
  std::vector<std::vector<float>> queries(9, {root, 0});
  queries.push_back({0, root});
  return written_head({{std::log(0.6F), -20}, {std::log(0.4F), -20}, {-20, 20}}, queries);
}

TEST(Eviction, TruncateKeepsTheFirst) {
  EXPECT_THAT(NamedMethod("truncate").indices(random_head(9, 1, 4, 1), 3), ElementsAre(0, 1, 2));
}

TEST(Eviction, StreamingLlmKeepsSinksAndTheLast) {
  const HeadProblem head = random_head(10, 1, 4, 1);
  EXPECT_THAT(NamedMethod("streaming_llm", {{"n_sink", 2}}).indices(head, 5), ElementsAre(0, 1, 7, 8, 9));
  EXPECT_THAT(NamedMethod("streaming_llm", {{"n_sink", 2}}).indices(head, 1), ElementsAre(0));
}

TEST(Eviction, KeyNormKeepsShortKeys) {
  const HeadProblem head = written_head({{3, 4}, {0, 1}, {5, 12}, {0, 0.5}});
  EXPECT_THAT(NamedMethod("key_norm", {{"n_sink", 0}}).indices(head, 4), ElementsAre(3, 1, 0, 2));
  EXPECT_THAT(NamedMethod("key_norm", {{"n_sink", 1}}).indices(head, 3), ElementsAre(0, 3, 1));
  EXPECT_THAT(NamedMethod("key_norm", {{"n_sink", 100}}).indices(head, 3), ElementsAre(0, 1, 2));
}

TEST(Eviction, KeyDiffKeepsTheOddOneOut) {
  const HeadProblem head = written_head({{1, 0}, {2, 0}, {0, 3}, {4, 0}});
  // The mean direction is (0.75, 0.25): cosine 0.949 with three keys, 0.316 with one. Equal ones in their order.
  EXPECT_THAT(NamedMethod("keydiff").indices(head, 4), ElementsAre(2, 0, 1, 3));
  expect_scores(NamedMethod("keydiff")->scores(head), {-0.948683, -0.948683, -0.316228, -0.948683}, 1e-5);
}

TEST(Eviction, KeyDiffTakesKeysOfZeros) {
  const at::Tensor scores = NamedMethod("keydiff")->scores(written_head({{0, 0}, {1, 0}, {-1, 0}}));
  EXPECT_TRUE(at::equal(scores, at::zeros({3})));
}

TEST(Eviction, H2oGoesByTheMeanAndKvzipByTheLargestWeight) {
  const HeadProblem head = nine_and_one();
  EXPECT_THAT(NamedMethod("h2o", {{"recent_fraction", 0.0}}).indices(head, 3), ElementsAre(0, 1, 2));
  EXPECT_THAT(NamedMethod("kvzip").indices(head, 3), ElementsAre(2, 0, 1));
  expect_scores(NamedMethod("h2o")->scores(head), {0.54, 0.36, 0.1}, 1e-4);
  expect_scores(NamedMethod("kvzip")->scores(head), {0.6, 0.4, 1.0}, 1e-4);
}

TEST(Eviction, H2oKeepsAHalfForTheMostRecent) {
  // Attention falls from entry 0 to entry 7.
  std::vector<std::vector<float>> keys;
  for (int j = 0; j < 8; ++j) keys.push_back({-static_cast<float>(j), 0});
  const HeadProblem head = written_head(keys, {{1, 0}});
  EXPECT_THAT(NamedMethod("h2o").indices(head, 4), ElementsAre(0, 1, 6, 7));
  EXPECT_THAT(NamedMethod("h2o").indices(head, 5), ElementsAre(0, 1, 2, 6, 7));
  EXPECT_THAT(NamedMethod("h2o", {{"recent_fraction", 1.0}}).indices(head, 3), ElementsAre(5, 6, 7));
}

TEST(Eviction, SnapKvKeepsTheNeighboursOfAPeak) {
  std::vector<std::vector<float>> keys(9, {0, 0});
  keys[5] = {8, 0};
  HeadProblem head = written_head(keys, {{1, 0}, {0, 8}});
  head.window_queries = [&](int64_t n_tokens) {
    EXPECT_EQ(n_tokens, 1);
    return head.queries.narrow(0, 0, 1);
  };
  EXPECT_THAT(NamedMethod("snapkv", {{"window", 1}, {"kernel", 3}}).indices(head, 4), ElementsAre(4, 5, 6, 0));
  EXPECT_THAT(NamedMethod("snapkv", {{"window", 1}, {"kernel", 1}}).indices(head, 2), ElementsAre(5, 0));
}

TEST(Eviction, TovaGoesByTheLastQuery) {
  HeadProblem head = written_head({{0, 0}, {5, 0}, {0, 5}, {1, 0}}, {{0, 9}, {9, 0}});
  head.window_queries = [&](int64_t n_tokens) { return head.queries.narrow(0, 2 - n_tokens, n_tokens); };
  EXPECT_THAT(NamedMethod("tova").indices(head, 3), ElementsAre(1, 3, 0));
  EXPECT_EQ(NamedMethod("tova").fit(head, 2).notes.at("heads_scored_alone"), 1);
}

TEST(Eviction, MethodsOfAWindowSayWhenThereIsNone) {
  const HeadProblem head = written_head({{1, 0}, {0, 1}}, {{1, 1}});
  for (const char* name : {"snapkv", "tova"}) {
    EXPECT_THAT(usage_refusal([&] { NamedMethod(name).fit(head, 1); }), HasSubstr("last queries of a text")) << name;
  }
}

// --- scores against float64 loops

struct Judged {
  std::string name;
  Json options;
  std::function<std::vector<double>(const HeadProblem&)> judge;
};

std::vector<double> window_mean(const HeadProblem& head, int64_t window) {
  return naive_attention_scores(head.window_queries(window), head.keys, head.bias, "mean");
}

std::vector<double> sinks_first(std::vector<double> scores, size_t n_sink) {
  std::fill_n(scores.begin(), n_sink, kInfinity);
  return scores;
}

std::vector<Judged> judged() {
  const auto all = [](const char* reduction) {
    return [=](const HeadProblem& h) { return naive_attention_scores(h.queries, h.keys, h.bias, reduction); };
  };
  const auto snapkv = [](int64_t window, int64_t kernel, const std::string& pool) {
    return Judged{"snapkv", {{"window", window}, {"kernel", kernel}, {"pool", pool}}, [=](const HeadProblem& h) {
                    return naive_pooled(window_mean(h, window), kernel, pool);
                  }};
  };
  return {{"h2o", Json::object(), all("mean")},
          {"cam", Json::object(), all("mean")},
          {"d2o", Json::object(), all("mean")},
          {"kv_merger", Json::object(), all("mean")},
          {"kvzip", Json::object(), all("max")},
          snapkv(32, 7, "max"),
          snapkv(5, 3, "avg"),
          snapkv(1, 1, "max"),
          {"tova", Json::object(), [](const HeadProblem& h) { return window_mean(h, 1); }},
          {"key_norm", {{"n_sink", 3}}, [](const HeadProblem& h) { return sinks_first(naive_key_norm(h.keys), 3); }},
          {"keydiff", Json::object(), [](const HeadProblem& h) { return naive_keydiff(h.keys); }}};
}

TEST(Eviction, ScoresEqualFloat64Loops) {
  for (const Judged& one : judged()) {
    const NamedMethod method(one.name, one.options);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const bool old_bias : {false, true}) {
        SCOPED_TRACE(one.name + one.options.dump() + at::toString(dtype) + (old_bias ? ", old bias" : ""));
        const HeadProblem head = random_head(90, 300, 16, 17, old_bias, dtype);  // more queries than a block has
        const std::vector<double> judge = one.judge(head);
        expect_scores(method->scores(head), judge);
      }
    }
  }
}

// What is kept is what scores best, the lower index first, with its own key, value and old bias.
TEST(Eviction, KeepsTheBestByItsScores) {
  for (const Judged& one : judged()) {
    if (one.name == "h2o" || one.name == "cam" || one.name == "d2o" || one.name == "kv_merger")
      continue;  // others as well
    const NamedMethod method(one.name, one.options);
    const HeadProblem head = random_head(90, 300, 16, 23, true);
    const at::Tensor scores = method->scores(head);
    std::vector<int64_t> order(90);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return scores[a].item<float>() > scores[b].item<float>(); });
    const HeadFit fit = method.fit(head, 37);
    for (int64_t j = 0; j < 37; ++j) {
      const int64_t entry = order[static_cast<size_t>(j)];
      EXPECT_EQ(fit.indices[j].item<int64_t>(), entry) << one.name;
      EXPECT_TRUE(at::equal(fit.keys[j], head.keys[entry]));
      EXPECT_TRUE(at::equal(fit.values[j], head.values[entry]));
      EXPECT_EQ(fit.bias[j].item<float>(), head.bias[entry].item<float>());
    }
  }
}

// An entry with bias ln 2 is worth two equal entries: each of the two has half of its mean weight.
TEST(Eviction, AnOldBiasCountsAsSoManyEntries) {
  HeadProblem twice = random_head(20, 100, 8, 4);
  twice.keys[7] = twice.keys[3];
  HeadProblem once = twice;
  once.keys = at::cat({twice.keys.narrow(0, 0, 7), twice.keys.narrow(0, 8, 12)});
  once.values = at::cat({twice.values.narrow(0, 0, 7), twice.values.narrow(0, 8, 12)});
  once.bias = at::zeros({19});
  once.bias[3] = std::log(2.0F);
  for (const char* name : {"h2o", "kvzip"}) {
    const at::Tensor two = NamedMethod(name)->scores(twice), one = NamedMethod(name)->scores(once);
    EXPECT_NEAR(one[3].item<double>(), 2 * two[3].item<double>(), 1e-6) << name;
    EXPECT_NEAR(one[10].item<double>(), two[11].item<double>(), 1e-6) << name;
  }
}
TEST(Eviction, TovaScoresTheHeadsOfALayerTogether) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  const NamedMethod tova("tova", {{"softmax_over", "article"}});
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    std::vector<double> mean(static_cast<size_t>(scene.source_len()), 0.0);
    for (int64_t h = 0; h < kKvHeads; ++h) {
      const std::vector<double> own = window_mean(scene_head(scene, request, layer, h), 1);
      for (size_t j = 0; j < own.size(); ++j) mean[j] += own[j] / kKvHeads;
    }
    for (int64_t h = 0; h < kKvHeads; ++h) expect_scores(tova->scores(scene_head(scene, request, layer, h)), mean);
  }
  const std::vector<Compaction> made = scene.compact(*tova.operator->(), {every_head(20)});
  EXPECT_TRUE(made[0].notes.empty());
}

TEST(Eviction, TovaScoresHeadsOfOtherLengthsAlone) {
  const Scene& scene = Scene::of(at::kFloat);
  const NamedMethod tova("tova");
  const std::vector<Compaction> first = scene.compact(*NamedMethod("h2o").operator->(), {{{{60, 50}, {40, 40}}}});
  CompactionRequest again = scene_request(scene, *scene.queries);
  const CompactionRequest ragged{
      again.model, again.context, first[0].cache, again.compactable, again.queries, {every_head(20)}, 1};
  EXPECT_EQ(tova->compact(ragged)[0].notes, (Json{{"heads_scored_alone", 2}}));
}

TEST(Eviction, RefusesOptionsOutOfRange) {
  const auto problem = [](const std::string& name, const Json& options) {
    return usage_refusal([&] { NamedMethod(name, options); });
  };
  EXPECT_THAT(problem("key_norm", {{"n_sink", -1}}), HasSubstr("must be 0 or more; got -1"));
  EXPECT_THAT(problem("expected_attention", {{"n_future", 0}}), HasSubstr("must be 1 to 1000000; got 0"));
  EXPECT_THAT(problem("expected_attention", {{"epsilon", -0.1}}), HasSubstr("must be 0 to 1; got -0.1"));
  EXPECT_THAT(problem("cam", {{"n_merged", 0}}), HasSubstr("must be 1 to 1000000; got 0"));
  EXPECT_THAT(problem("d2o", {{"recent_fraction", 1.5}}), HasSubstr("must be 0 to 1; got 1.5"));
  EXPECT_THAT(problem("kvzip", {{"window", 3}}), HasSubstr("unknown option"));
}

}  // namespace
}  // namespace kvc
