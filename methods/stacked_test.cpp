// Two stages: the second one's cache, queries, positions and sizes; what a sweep's author may write.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness/api/budget_rule.h"
#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/testing/checks.h"
#include "harness/testing/method_scene.h"
#include "methods/parts/text_method.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::unique_ptr<CompactionMethod> method(const std::string& name, const Json& options = Json::object()) {
  return Registry<CompactionMethod>::instance().create(name, options);
}

Json stacked(const Json& then, double first_target = 0, const Json& first = "truncate_text") {
  return {{"first", first}, {"then", then}, {"first_target", first_target}};
}

int64_t kept(const Scene& scene, const KvCache& cache, int64_t layer, int64_t head) {
  return cache.layer(layer).head_len(head) - scene.template_len();
}

// Both stages by hand.
Compaction by_hand(const Scene& scene, const std::string& then, int64_t first_len, int64_t total, std::uint64_t seed) {
  const std::vector<int64_t> article = scene.context.article_tokens();
  const Context context = with_article(scene.context, {article.begin(), article.begin() + first_len});
  const KvCache cache = scene.model.decoder().prefill(context.tokens);
  const auto queries = Registry<QuerySource>::instance()
                           .create("repeat_prefill", Json::object())
                           ->make({scene.model, context, cache, derive_seed(seed, "stacked/queries")});
  return std::move(method(then)->compact({scene.model,
                                          context,
                                          cache,
                                          {context.prefix_len, context.suffix_len},
                                          queries.get(),
                                          {every_head(total)},
                                          derive_seed(seed, "stacked/then")})[0]);
}

TEST(Stacked, SecondStageWorksOnTheShorterTextsOwnCacheAndQueries) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Scene& scene = Scene::of(dtype);
    for (const char* then : {"attention_matching", "h2o"}) {
      const auto both = method("stacked", stacked({{"method", then}, {"queries", "repeat_prefill"}}, 0.5));
      const Compaction made = std::move(scene.compact(*both, {every_head(20)}, 4)[0]);
      const int64_t half = scene.source_len() / 2;
      EXPECT_TRUE(same_bits(made.cache, by_hand(scene, then, half, 20, 4).cache)) << then;
      EXPECT_EQ(made.cache.next_position(), scene.template_len() + half);
      EXPECT_EQ(made.notes.at("first_tokens"), half);
      EXPECT_GT(made.notes.at("then_queries").get<int64_t>(), 0);
    }
  }
}

TEST(Stacked, TheTargetIsThatOfBothStages) {
  const Scene& scene = Scene::of(at::kFloat);
  const int64_t T = scene.source_len();
  const auto both = method("stacked", stacked("truncate", 0.5));
  const auto made = scene.compact(*both, {every_head(T / 10), every_head(T / 4), every_head(T / 2)});
  for (size_t i = 0; i < made.size(); ++i) {
    const int64_t expected = std::vector<int64_t>{T / 10, T / 4, T / 2}[i];
    for (int64_t l = 0; l < kLayers; ++l) {
      for (int64_t h = 0; h < kKvHeads; ++h) EXPECT_EQ(kept(scene, made[i].cache, l, h), expected);
    }
  }
  // The second stage has nothing left to do.
  EXPECT_TRUE(same_bits(made[2].cache, scene.compact(*method("truncate_text"), {every_head(T / 2)})[0].cache));
}

TEST(Stacked, WithoutAFirstTargetBothKeepTheSameFraction) {
  const Scene& scene = Scene::of(at::kFloat);
  const int64_t T = scene.source_len();
  const auto made =
      scene.compact(*method("stacked", stacked("truncate")), {every_head(T / 10), every_head(T), every_head(0)});
  EXPECT_NEAR(static_cast<double>(made[0].cache.next_position() - scene.template_len()),
              std::sqrt(static_cast<double>(T / 10 * T)), 0.5);
  EXPECT_TRUE(same_bits(made[1].cache, scene.full));
  EXPECT_EQ(made[2].cache.next_position(), scene.template_len());
}

TEST(Stacked, ASummaryShorterThanTheTargetIsKeptWhole) {
  const Scene& scene = Scene::of(at::kFloat);
  const int64_t T = scene.source_len();
  const auto both = method("stacked", stacked("random_keys", 0, {{"method", "summarize"}, {"length", "free"}}));
  const auto made = scene.compact(*both, {every_head(5), every_head(T)});
  const int64_t tokens = made[0].notes.at("first_tokens");
  EXPECT_EQ(made[1].notes.at("first"), made[0].notes.at("first"));
  EXPECT_EQ(made[1].cache.n_entries(), kLayers * kKvHeads * (scene.template_len() + tokens));
  EXPECT_EQ(made[0].cache.n_entries(), kLayers * kKvHeads * (scene.template_len() + std::min<int64_t>(5, tokens)));
}

TEST(Stacked, AnEmptyFirstStageIsTheTemplate) {
  const Scene& scene = Scene::of(at::kFloat);
  const Json then = {{"method", "attention_matching"}, {"queries", "repeat_prefill"}};
  const auto made = scene.compact(*method("stacked", stacked(then, 0, "no_context")), {every_head(20)});
  EXPECT_TRUE(same_bits(made[0].cache, scene.compact(*method("no_context"), {})[0].cache));
}

TEST(Stacked, SecondStageHasABudgetRuleOfItsOwn) {
  const Scene& scene = Scene::of(at::kFloat);
  const Json then = {{"method", "random_keys"}, {"budget", "pyramid"}};
  const auto made = scene.compact(*method("stacked", stacked(then, 0.5)), {every_head(20)});
  EXPECT_GT(kept(scene, made[0].cache, 0, 0), kept(scene, made[0].cache, 1, 0));
  EXPECT_EQ(made[0].cache.n_entries(), kLayers * kKvHeads * (scene.template_len() + 20));
}

TEST(Stacked, AFirstTargetBelowTheTargetIsAnError) {
  const Scene& scene = Scene::of(at::kFloat);
  EXPECT_THAT(error_of(ErrorKind::kUsage,
                       [&] {
                         scene.compact(*method("stacked", stacked("random_keys", 0.1)),
                                       {every_head(scene.source_len() / 2)});
                       }),
              AllOf(HasSubstr("fewer than the target"), HasSubstr("first_target: 0.1")));
}

// --- what stands in a file -------------------------------------------------------------------------------------------

std::string problems_of(const std::string& options) {
  const ConfigText text = ConfigText::from_string("method:\n" + options, "sweep.yaml");
  Problems problems(&text);
  Registry<CompactionMethod>::instance().find("stacked")->complete(text.value().at("method"), "/method", problems);
  std::string all;
  for (const Problem& problem : problems.list())
    all += problem.where + ": " + problem.fact + "; " + problem.mend + "\n";
  return all;
}

TEST(StackedOptions, AreWrittenAsInASweep) {
  EXPECT_EQ(problems_of(
                "  first: summarize\n  then: {method: snapkv, window: 8, queries: context_prefill, budget: pyramid}\n"),
            "");
  EXPECT_EQ(problems_of("  first: {method: summarize, prompt: concise}\n  then: random_keys\n  first_target: 0.2\n"),
            "");
}

TEST(StackedOptions, ProblemsAreNamedAtTheirLine) {
  EXPECT_THAT(problems_of("  first: summarise\n"),
              AllOf(HasSubstr("sweep.yaml:2"), HasSubstr("did you mean 'summarize'")));
  EXPECT_THAT(problems_of("  first:\n    method: summarize\n    promt: plain\n"),
              AllOf(HasSubstr("sweep.yaml:4, method.first.promt"), HasSubstr("unknown option 'promt'")));
  EXPECT_THAT(problems_of("  then:\n    method: snapkv\n    window: wide\n    queries: repeat_prefill\n"),
              AllOf(HasSubstr("sweep.yaml:4, method.then.window"), HasSubstr("must be an integer; got \"wide\"")));
  EXPECT_THAT(
      problems_of("  then:\n    method: snapkv\n    queries:\n      queries: repeat_prefill\n      max_querys: 3\n"),
      AllOf(HasSubstr("sweep.yaml:6, method.then.queries.max_querys"), HasSubstr("did you mean 'max_queries'")));
  EXPECT_THAT(problems_of("  then:\n    method: random_keys\n    budget: pyramids\n"),
              AllOf(HasSubstr("sweep.yaml:4"), HasSubstr("pyramid")));
}

TEST(StackedOptions, StagesThatDoNotFitAreRefused) {
  EXPECT_THAT(problems_of("  first: snapkv\n"), HasSubstr("does not work on the text"));
  EXPECT_THAT(problems_of("  then: summarize\n"), HasSubstr("takes no target"));
  EXPECT_THAT(problems_of("  then: full_cache\n"), HasSubstr("takes no target"));
  EXPECT_THAT(problems_of("  then: {method: random_keys, queries: repeat_prefill}\n"), HasSubstr("takes no queries"));
  EXPECT_THAT(problems_of("  then: {window: 3}\n"), HasSubstr("without a name"));
  EXPECT_THAT(problems_of("  then:\n"), HasSubstr("without a name"));
  EXPECT_THAT(problems_of("  first: no_context\n  first_target: 0.5\n"), HasSubstr("takes no target"));
  EXPECT_THAT(problems_of("  first_target: 1.5\n"), HasSubstr("must be 0 to 1; got 1.5"));
}

// However deep a file nests them, the first level is refused before the second is looked at.
TEST(StackedOptions, StackedMethodsAreNotNested) {
  Json deep = "random_keys";
  for (int i = 0; i < 500; ++i) deep = Json{{"method", "stacked"}, {"then", std::move(deep)}};
  for (const char* stage : {"first", "then"}) {
    Problems problems;
    Registry<CompactionMethod>::instance().find("stacked")->complete({{stage, deep}}, "", problems);
    ASSERT_EQ(problems.list().size(), 1U);
    EXPECT_THAT(problems.list()[0].fact, HasSubstr("a stacked method within a stacked one"));
  }
}

// The same cell however it is spelled.
TEST(StackedOptions, AreFilledIn) {
  const auto completed = [](const Json& options) {
    Problems problems;
    const Json all = Registry<CompactionMethod>::instance().find("stacked")->complete(options, "", problems);
    EXPECT_TRUE(problems.empty());
    return all;
  };
  const Json brief = completed({{"first", "summarize"}, {"then", "random_keys"}});
  EXPECT_EQ(brief, completed({{"first", {{"method", "summarize"}, {"prompt", "plain"}}},
                              {"then", {{"method", "random_keys"}, {"budget", "uniform"}}}}));
  EXPECT_EQ(brief, completed(brief));
  EXPECT_EQ(brief.at("first").at("name"), "summarize");
  EXPECT_EQ(brief.at("then").at("name"), "random_keys");
}

}  // namespace
}  // namespace kvc
