// Methods that decide by themselves how much they keep, and positions counted inside the cache.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/testing/method_scores.h"
#include "harness/testing/naive_methods_eviction.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<CompactionMethod> method(const std::string& name, const Json& options) {
  return Registry<CompactionMethod>::instance().create(name, options);
}

// --- threshold

TEST(Threshold, KeepsWhatScoresAboveTheNumber) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  const Json inner = {{"method", "key_norm"}, {"n_sink", 0}};
  const double above =
      NamedMethod("key_norm", {{"n_sink", 0}})->scores(scene_head(scene, request, 0, 1)).median().item<double>();
  const std::vector<Compaction> made = scene.compact(*method("threshold", {{"scores", inner}, {"above", above}}), {});
  ASSERT_EQ(made.size(), 1U);
  for (int64_t l = 0; l < kLayers; ++l) {
    for (int64_t h = 0; h < kKvHeads; ++h) {
      const HeadProblem head = scene_head(scene, request, l, h);
      int64_t wanted = 0;
      for (const double score : naive_key_norm(head.keys)) wanted += score > above ? 1 : 0;
      const at::Tensor kept = made[0].cache.layer(l).head_keys(h).narrow(
          0, scene.context.prefix_len, made[0].cache.layer(l).head_len(h) - scene.template_len());
      EXPECT_EQ(kept.size(0), wanted);
      for (const double score : naive_key_norm(kept)) EXPECT_GT(score, above);
    }
  }
  // The median: at most half, and fewer where equal tokens in the first layer score the same.
  const int64_t n_kept = made[0].cache.layer(0).head_len(1) - scene.template_len();
  EXPECT_LE(n_kept, scene.source_len() / 2);
  EXPECT_GT(n_kept, scene.source_len() / 4);
  EXPECT_FALSE(method("threshold", Json::object())->needs_target());
  EXPECT_THAT(usage_refusal([] {
                method("threshold", {{"scores", {{"method", "threshold"}}}});
              }),
              HasSubstr("a threshold method within a threshold one"));
  EXPECT_THAT(usage_refusal([&] {
                scene.compact(*method("threshold", {{"scores", {{"method", "random_keys"}}}}), {});
              }),
              HasSubstr("has no scores"));
}

// --- SimLayerKV

// Share of the last query's attention on first and recent entries: plain loops over the whole head.
double naive_share(const Scene& scene, const CompactionRequest& request, int64_t layer, int64_t n_initial,
                   int64_t n_recent) {
  double sum = 0, count = 0;
  for (int64_t h = 0; h < kKvHeads; ++h) {
    const NaiveRows queries = naive_rows(request.queries->window(layer, 1).select(0, h));
    const NaiveRows keys = naive_rows(request.cache.layer(layer).head_keys(h));
    for (const auto& query : queries) {
      double all = 0, near = 0;
      for (size_t j = 0; j < keys.size(); ++j) {
        double logit = 0;
        for (size_t c = 0; c < query.size(); ++c) logit += query[c] * keys[j][c];
        const double weight = std::exp(logit / std::sqrt(static_cast<double>(query.size())));
        const auto place = static_cast<int64_t>(j), n = static_cast<int64_t>(keys.size());
        all += weight;
        near += place < n_initial || (place < n - 1 && place >= n - 1 - n_recent) ? weight : 0;
      }
      sum += near / all;
      count += 1;
    }
  }
  EXPECT_EQ(scene.full.n_layers(), kLayers);
  return sum / count;
}

TEST(SimLayerKv, CutsTheLayersThatLookAtTheEnds) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto queries = Registry<QuerySource>::instance()
                           .create("context_prefill", Json::object())
                           ->make({scene.model, scene.context, scene.full, 5});
  const CompactionRequest request = scene_request(scene, *queries);
  const int64_t n_initial = scene.context.prefix_len + 3, n_recent = 30;
  const double shares[] = {naive_share(scene, request, 0, n_initial, n_recent),
                           naive_share(scene, request, 1, n_initial, n_recent)};
  ASSERT_GT(std::abs(shares[0] - shares[1]), 1e-3);
  const size_t lazier = shares[0] > shares[1] ? 0 : 1;
  for (const double threshold : {0.0, (shares[0] + shares[1]) / 2, std::max(shares[0], shares[1]) + 1e-4}) {
    const auto cut =
        method("simlayer_kv", {{"threshold", threshold}, {"n_initial", n_initial}, {"n_recent", n_recent}});
    const std::vector<Compaction> made = cut->compact(request);
    int64_t lazy = 0;
    for (size_t l = 0; l < 2; ++l) {
      const bool is_lazy = threshold == 0 || (l == lazier && shares[l] > threshold);
      lazy += is_lazy ? 1 : 0;
      const int64_t wanted = is_lazy ? n_initial + n_recent - 1 : scene.full.layer(0).head_len(0);
      EXPECT_EQ(made[0].cache.layer(static_cast<int64_t>(l)).head_len(1), wanted) << "layer " << l;
    }
    EXPECT_EQ(made[0].notes.at("lazy_layers"), lazy);
  }
  // Nothing to gain from a text this short.
  EXPECT_EQ(method("simlayer_kv", {{"threshold", 0.0}})->compact(request)[0].cache.n_entries(), scene.full.n_entries());
  EXPECT_THAT(usage_refusal([] {
                method("simlayer_kv", {{"n_recent", 1}, {"n_last", 2}});
              }),
              HasSubstr("'n_recent' must be 2 or more; got 1"));
}

// --- positions inside the cache

// What is kept looks to every later query as it would in a text of the kept tokens alone, positions counted without
// gaps.
TEST(Rerotation, SinksStandRightBeforeTheRecentEntries) {
  const Scene& scene = Scene::of(at::kFloat);
  const int64_t prefix = scene.context.prefix_len, T = scene.source_len(), n_sink = 5, t = 40;
  const auto streaming = method("streaming_llm", {{"n_sink", prefix + n_sink}, {"rerotate", true}});
  const std::vector<Compaction> made = scene.compact(*streaming, {every_head(t)});
  EXPECT_EQ(made[0].cache.next_position(), scene.full.next_position());
  const auto frequencies = rope_frequencies(scene.model.spec()).frequencies;
  const size_t half = frequencies.size();
  for (int64_t l = 0; l < kLayers; ++l) {
    for (int64_t h = 0; h < kKvHeads; ++h) {
      const NaiveRows was = naive_rows(scene.full.layer(l).head_keys(h)),
                      is = naive_rows(made[0].cache.layer(l).head_keys(h));
      ASSERT_EQ(static_cast<int64_t>(is.size()), scene.template_len() + t);
      for (size_t i = 0; i < is.size(); ++i) {
        const auto place = static_cast<int64_t>(i);
        const int64_t source = place < prefix + n_sink ? place : place + T - t;
        const double gap = place < prefix + n_sink ? static_cast<double>(T - t) : 0;
        const auto& key = was[static_cast<size_t>(source)];
        for (size_t c = 0; c < half; ++c) {
          const double angle = gap * static_cast<double>(frequencies[c]);
          EXPECT_NEAR(is[i][c], key[c] * std::cos(angle) - key[half + c] * std::sin(angle), 2e-5);
          EXPECT_NEAR(is[i][half + c], key[half + c] * std::cos(angle) + key[c] * std::sin(angle), 2e-5);
        }
      }
    }
  }
  // A layer's first keys depend on nothing but their token and position: those of a text of the kept tokens alone are
  // the same up to the common turn by the evicted part.
  std::vector<int64_t> tokens(scene.context.tokens.begin(), scene.context.tokens.begin() + prefix + n_sink);
  tokens.insert(tokens.end(), scene.context.tokens.begin() + prefix + n_sink + T - t, scene.context.tokens.end());
  const KvCache alone = scene.model.decoder().prefill(tokens);
  const at::Tensor query = scene.queries->window(0, 1).select(0, 0).to(at::kDouble);
  at::Tensor turned = query.clone();  // back by the evicted part
  for (int64_t c = 0; c < static_cast<int64_t>(half); ++c) {
    const double angle = -static_cast<double>(T - t) * static_cast<double>(frequencies[static_cast<size_t>(c)]);
    const auto low = query.select(1, c), high = query.select(1, c + static_cast<int64_t>(half));
    turned.select(1, c).copy_(low * std::cos(angle) - high * std::sin(angle));
    turned.select(1, c + static_cast<int64_t>(half)).copy_(high * std::cos(angle) + low * std::sin(angle));
  }
  const at::Tensor here = at::mv(made[0].cache.layer(0).head_keys(0).to(at::kDouble), query[0]);
  const at::Tensor there = at::mv(alone.layer(0).head_keys(0).to(at::kDouble), turned[0]);
  EXPECT_LT((here - there).abs().max().item<double>(), 1e-3);
}

TEST(Rerotation, RefusesWhereNobodyKnowsPositions) {
  EXPECT_THAT(usage_refusal([] {
                NamedMethod("streaming_llm", {{"rerotate", true}}).fit(random_head(9, 1, 4, 1), 3);
              }),
              HasSubstr("needs a model's positions"));
}

}  // namespace
}  // namespace kvc
