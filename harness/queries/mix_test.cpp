// Shares of several sources, and the sources that read no text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/testing/query_scene.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

const QueryScene& scene() {
  static const QueryScene scene({});
  return scene;
}

Json source(const std::string& name, double fraction, Json options = Json::object()) {
  options["queries"] = name;
  options["fraction"] = fraction;
  return options;
}

Json mix(int64_t max_queries, const std::vector<Json>& sources) {
  return {{"max_queries", max_queries}, {"sources", sources}};
}

// Which rows of `all` (m, d) the rows of `part` are, -1 for none.
std::vector<int64_t> rows_of(const at::Tensor& part, const at::Tensor& all) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < part.size(0); ++i) {
    const at::Tensor same = (all == part[i]).all(1).nonzero();
    rows.push_back(same.size(0) == 0 ? -1 : same[0].item<int64_t>());
  }
  return rows;
}

TEST(Mix, SharesAreFloorsOfTheFractions) {
  const auto queries = scene().make("mix", mix(101, {source("random_vectors", 0.3), source("context_prefill", 0.7)}));
  EXPECT_EQ(queries->n_queries(), 30 + 70);
  for (int64_t l = 0; l < 2; ++l) {
    EXPECT_EQ(queries->layer(l, nullptr).sizes().vec(), (std::vector<int64_t>{2, 100, 16}));
  }
}

TEST(Mix, PartsFollowAsListedAndAreTheSourcesOwn) {
  const auto queries = scene().make(
      "mix", mix(60, {source("context_prefill", 0.5), source("cache_keys", 0.25), source("random_vectors", 0.25)}));
  const auto context = scene().make("context_prefill", {{"max_queries", 100000}});
  const auto keys = scene().make("cache_keys", {{"max_queries", 100000}});
  std::vector<int64_t> first;
  for (int64_t l = 0; l < 2; ++l) {
    const at::Tensor all = queries->layer(l, nullptr);
    ASSERT_EQ(all.size(1), 60);
    for (int64_t head = 0; head < 2; ++head) {
      const auto from_context = rows_of(all[head].narrow(0, 0, 30), context->layer(l, nullptr)[head]);
      const auto from_keys = rows_of(all[head].narrow(0, 30, 15), keys->layer(l, nullptr)[head]);
      EXPECT_THAT(from_context, ::testing::Each(::testing::Ge(0)));
      EXPECT_THAT(from_keys, ::testing::Each(::testing::Ge(0)));
      EXPECT_TRUE(std::is_sorted(from_keys.begin(), from_keys.end()));
      // The same tokens in all layers and heads.
      if (first.empty()) first = from_context;
      EXPECT_EQ(from_context, first);
      EXPECT_THAT(rows_of(all[head].narrow(0, 45, 15), keys->layer(l, nullptr)[head]), ::testing::Each(-1));
    }
  }
}

TEST(Mix, APoorSourceShrinksTheOthers) {
  // The article's keys are all that cache_keys has; half of 4,000 is asked of it.
  const int64_t n_keys = scene().context.article_len();
  ASSERT_EQ(n_keys, 300);
  const auto queries = scene().make("mix", mix(4000, {source("random_vectors", 0.5), source("cache_keys", 0.5)}));
  // s = 300 / 2000: each gives floor(2000 s) = 300.
  EXPECT_EQ(queries->n_queries(), 600);
  EXPECT_EQ(queries->layer(1, nullptr).size(1), 600);
  // 300 of the 899 asked for; the other gives floor(2100 * 300 / 899) of its 2100.
  const auto uneven =
      scene().make("mix", mix(3000, {source("cache_keys", 0.29967), source("random_vectors", 0.70033)}));
  EXPECT_EQ(uneven->n_queries(), 300 + 700);
}

TEST(Mix, ASourceRoundedUpToItsGroupIsCutToItsShare) {
  // 51 queries of a group of 2 are 26 tokens, 52 queries.
  const auto queries = scene().make("mix", mix(102, {source("context_prefill", 0.5), source("repeat_prefill", 0.5)}));
  EXPECT_EQ(queries->n_queries(), 102);
  EXPECT_EQ(queries->positions().size(0), 102);
  // Positions follow the queries: those of the second part stand behind the context.
  const auto end = static_cast<int64_t>(scene().context.tokens.size());
  EXPECT_LT(queries->positions().narrow(0, 0, 51).max().item<int64_t>(), end);
  EXPECT_GE(queries->positions().narrow(0, 51, 51).min().item<int64_t>(), end);
}

TEST(Mix, PositionsAreKnownWhereAllSourcesKnowThem) {
  const auto queries = scene().make("mix", mix(100, {source("context_prefill", 0.5), source("random_vectors", 0.5)}));
  EXPECT_FALSE(queries->positions().defined());
}

TEST(Mix, TheSeedDecides) {
  const Json options = mix(64, {source("context_prefill", 0.5), source("random_vectors", 0.5)});
  const at::Tensor once = scene().make("mix", options, 5)->layer(1, nullptr);
  EXPECT_TRUE(at::equal(once, scene().make("mix", options, 5)->layer(1, nullptr)));
  const at::Tensor other = scene().make("mix", options, 6)->layer(1, nullptr);
  EXPECT_FALSE(at::equal(once.narrow(1, 0, 32), other.narrow(1, 0, 32)));
  EXPECT_FALSE(at::equal(once.narrow(1, 32, 32), other.narrow(1, 32, 32)));
}

TEST(Mix, TheWindowIsThatOfTheFirstText) {
  const auto queries = scene().make("mix", mix(64, {source("random_vectors", 0.5), source("repeat_prefill", 0.5)}));
  const auto repeat = scene().make("repeat_prefill", Json::object());
  EXPECT_TRUE(at::equal(queries->window(1, 9), repeat->window(1, 9)));
  const auto none = scene().make("mix", mix(64, {source("random_vectors", 1)}));
  EXPECT_THAT(error_of(ErrorKind::kUsage, [&] { none->window(0, 3); }), HasSubstr("reads no text"));
}

TEST(Mix, OnPolicyPartsReadTheCompactedLayers) {
  const QueryScene deep({.n_layers = 4});
  const Json options = mix(80, {source("random_vectors", 0.5), source("repeat_prefill", 0.5, {{"on_policy", true}})});
  const auto queries = deep.make("mix", options);
  ASSERT_TRUE(queries->on_policy());
  // Halved values below: the text's queries differ, the random ones do not.
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < 4; ++l) {
    layers.push_back(deep.full.layer(l));
    layers.back().values = layers.back().values * 0.5;
  }
  const KvCache below(std::move(layers), deep.full.next_position());
  const auto off = deep.make("mix", options);
  for (int64_t l = 0; l < 3; ++l) {
    const at::Tensor on = queries->layer(l, &below), reference = off->layer(l, nullptr);
    EXPECT_TRUE(at::equal(on.narrow(1, 0, 40), reference.narrow(1, 0, 40)));
    EXPECT_EQ((on.narrow(1, 40, 40) - reference.narrow(1, 40, 40)).abs().max().item<float>() > 0.05, l > 0) << l;
  }
}

std::string config_problem(const std::string& yaml) {
  const ConfigText text = ConfigText::from_string(yaml, "m.yaml");
  Problems problems(&text);
  Registry<QuerySource>::instance().find("mix")->complete(text.value(), "", problems);
  return error_of(ErrorKind::kUsage, [&] { problems.throw_if_any(); });
}

TEST(Mix, TellsMistakesWithTheirLine) {
  EXPECT_EQ(config_problem("sources:\n  - {queries: context_prefill, fraction: 0.5}\n  - {queries: cache_keys, "
                           "fraction: 0.4}\n"),
            "'sources' has fractions that sum to 0.9\n  where: m.yaml:1, sources\n  mend:  write fractions that sum to "
            "1");
  EXPECT_THAT(
      config_problem("max_queries: 100\nsources:\n  - {queries: context_prefil, fraction: 1}\n"),
      HasSubstr("unknown queries 'context_prefil'\n  where: m.yaml:3, sources[0].queries\n  mend:  did you mean "
                "'context_prefill'?"));
  EXPECT_THAT(
      config_problem("sources:\n  - queries: cache_keys\n    fraction: 1\n    q_nrm: true\n"),
      HasSubstr("unknown option 'q_nrm'\n  where: m.yaml:4, sources[0].q_nrm\n  mend:  did you mean 'q_norm'?"));
  EXPECT_THAT(config_problem("sources:\n  - cache_keys\n"), HasSubstr("without a fraction\n  where: m.yaml:2"));
  EXPECT_THAT(config_problem("sources:\n  - {queries: cache_keys, fraction: 1.5}\n"),
              HasSubstr("the fraction must be above 0 and at most 1; got 1.5"));
  EXPECT_THAT(config_problem("sources:\n  - {queries: cache_keys, fraction: 0.5}\n  - {queries: cache_keys, fraction: "
                             "0.5}\n"),
              HasSubstr("has cache_keys twice"));
  EXPECT_THAT(config_problem("max_queries: 100\nsources: [{queries: cache_keys, fraction: 1, max_queries: 7}]\n"),
              HasSubstr("a source inside a mix must not set max_queries\n  where: m.yaml:2"));
  EXPECT_THAT(config_problem("sources: [{queries: mix, fraction: 1, sources: [{queries: cache_keys, fraction: 1}]}]\n"),
              HasSubstr("a mix inside a mix"));
  EXPECT_THAT(config_problem("sources: [{queries: question, fraction: 1}]\n"),
              HasSubstr("'question' cannot be part of a mix\n  where: m.yaml:1"));
  EXPECT_THAT(config_problem("sources: [{queries: dapq, fraction: 1}]\n"), HasSubstr("reads a fixed number of tokens"));
  EXPECT_THAT(config_problem("sources: []\n"), HasSubstr("'sources' must name at least one source; got []"));
  EXPECT_THAT(config_problem("max_queries: 3\nsources: [{queries: cache_keys, fraction: 0.99}, {queries: "
                             "random_vectors, fraction: 0.01}]\n"),
              HasSubstr("0.01 of 3 queries is less than one"));
  EXPECT_EQ(config_problem("sources: [{queries: cache_keys, fraction: 0.995}]\n"), "no error");
}

TEST(Mix, ItsCompletedOptionsMakeItAgain) {
  Problems problems;
  const auto* entry = Registry<QuerySource>::instance().find("mix");
  const Json given = mix(200, {source("repeat_prefill", 0.75, {{"on_policy", true}}), source("random_vectors", 0.25)});
  const Json complete = entry->complete(given, "", problems);
  problems.throw_if_any();
  EXPECT_EQ(complete.at("sources")[0],
            (Json{{"name", "repeat_prefill"}, {"max_queries", 150}, {"on_policy", true}, {"fraction", 0.75}}));
  EXPECT_EQ(entry->complete(complete, "", problems), complete);
  problems.throw_if_any();
  EXPECT_EQ(entry->create(complete)->make(scene().request())->n_queries(), 200);
}

TEST(RandomVectors, AreStandardNormalAndDifferByLayerAndSeed) {
  const auto queries = scene().make("random_vectors", {{"max_queries", 5000}}, 3);
  EXPECT_EQ(queries->n_queries(), 5000);
  EXPECT_EQ(queries->bytes(), 0);
  EXPECT_FALSE(queries->positions().defined());
  const at::Tensor layer = queries->layer(0, nullptr);
  ASSERT_EQ(layer.sizes().vec(), (std::vector<int64_t>{2, 5000, 16}));
  // 160,000 draws: the mean's deviation is 0.0025, the variance's 0.0035.
  EXPECT_NEAR(layer.mean().item<double>(), 0, 0.0125);
  EXPECT_NEAR(layer.var().item<double>(), 1, 0.018);
  EXPECT_TRUE(at::equal(layer, queries->layer(0, nullptr)));
  EXPECT_FALSE(at::equal(layer, queries->layer(1, nullptr)));
  EXPECT_FALSE(at::equal(layer[0], layer[1]));
  EXPECT_FALSE(at::equal(layer, scene().make("random_vectors", {{"max_queries", 5000}}, 4)->layer(0, nullptr)));
}

TEST(RandomVectors, PassTheNormOverQueriesWhereAsked) {
  const QueryScene normed({.qk_norm = true});
  const auto plain = normed.make("random_vectors", {{"max_queries", 20}});
  const auto queries = normed.make("random_vectors", {{"max_queries", 20}, {"q_norm", true}});
  for (int64_t l = 0; l < 2; ++l) {
    const at::Tensor x = plain->layer(l, nullptr).to(at::kDouble);
    const at::Tensor weight = normed.model.decoder().weights().layers[static_cast<size_t>(l)].q_norm.to(at::kDouble);
    const at::Tensor expected = x / (x.square().mean(-1, true) + normed.model.spec().rms_norm_eps).sqrt() * weight;
    EXPECT_LT((queries->layer(l, nullptr) - expected).abs().max().item<double>(), 1e-5);
  }
  for (const char* name : {"random_vectors", "cache_keys"}) {
    EXPECT_THAT(error_of(ErrorKind::kUsage,
                         [&] {
                           scene().make(name, {{"q_norm", true}});
                         }),
                HasSubstr("the model has no norm over queries"));
  }
}

TEST(CacheKeys, AreTheArticlesKeys) {
  const QueryScene normed({.qk_norm = true});
  const auto all = normed.make("cache_keys", {{"max_queries", 10000}});
  const auto some = normed.make("cache_keys", {{"max_queries", 40}});
  const auto with_norm = normed.make("cache_keys", {{"max_queries", 10000}, {"q_norm", true}});
  EXPECT_EQ(all->n_queries(), normed.context.article_len());
  EXPECT_EQ(some->n_queries(), 40);
  std::vector<int64_t> drawn;
  for (int64_t l = 0; l < 2; ++l) {
    for (int64_t head = 0; head < 2; ++head) {
      const at::Tensor keys =
          normed.full.layer(l).head_keys(head).narrow(0, normed.context.prefix_len, normed.context.article_len());
      EXPECT_TRUE(at::equal(all->layer(l, nullptr)[head], keys));
      const auto rows = rows_of(some->layer(l, nullptr)[head], keys);
      if (drawn.empty()) drawn = rows;
      EXPECT_EQ(rows, drawn);
      const at::Tensor x = keys.to(at::kDouble);
      const at::Tensor weight = normed.model.decoder().weights().layers[static_cast<size_t>(l)].q_norm;
      const at::Tensor expected = x / (x.square().mean(-1, true) + normed.model.spec().rms_norm_eps).sqrt() * weight;
      EXPECT_LT((with_norm->layer(l, nullptr)[head] - expected).abs().max().item<double>(), 1e-5);
    }
  }
  EXPECT_TRUE(std::is_sorted(drawn.begin(), drawn.end()));
  EXPECT_THAT(error_of(ErrorKind::kUsage, [&] { all->window(0, 3); }), HasSubstr("cache_keys reads no text"));
}

// Of a cache compacted before, with heads of different lengths.
TEST(CacheKeys, EveryHeadGivesAsManyAsTheShortestHas) {
  std::vector<LayerKv> layers;
  const int64_t around = scene().context.prefix_len + scene().context.suffix_len;
  for (int64_t l = 0; l < 2; ++l) {
    std::vector<at::Tensor> keys, values, bias(2);
    for (int64_t head = 0; head < 2; ++head) {
      const int64_t length = around + 20 + 10 * l + 5 * head;
      keys.push_back(scene().full.layer(l).head_keys(head).narrow(0, 0, length));
      values.push_back(keys.back());
    }
    layers.push_back(pack_heads(keys, values, bias));
  }
  const KvCache ragged(std::move(layers), scene().full.next_position());
  const auto queries = Registry<QuerySource>::instance()
                           .create("cache_keys", Json::object())
                           ->make({scene().model, scene().context, ragged, 1});
  EXPECT_EQ(queries->n_queries(), 20);
  EXPECT_EQ(queries->layer(1, nullptr).sizes().vec(), (std::vector<int64_t>{2, 20, 16}));
}

}  // namespace
}  // namespace kvc
