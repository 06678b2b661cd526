// Scores as shares of all that a query attends to, against float64 attention over the whole text read at once.
#include "methods/parts/query_reach.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "harness/testing/method_scores.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

std::unique_ptr<LayerQueries> queries_of(const Scene& scene, const std::string& source, const Json& options = {}) {
  return Registry<QuerySource>::instance()
      .create(source, options.is_null() ? Json::object() : options)
      ->make({scene.model, scene.context, scene.full, 5});
}

// Context, question and repetition as one text.
KvCache whole_text(const Scene& scene) {
  std::vector<int64_t> tokens = scene.context.tokens;
  const std::vector<int64_t> question = make_question_prompt(scene.model, "Repeat the previous context verbatim.");
  tokens.insert(tokens.end(), question.begin(), question.end());
  const std::vector<int64_t> article = scene.context.article_tokens();
  tokens.insert(tokens.end(), article.begin(), article.end());
  return scene.model.decoder().prefill(tokens);
}

// Causal attention weights of queries at `positions` over keys (N,d) at 0 .. N - 1, of the article's entries: the mean
// or the maximum over the queries.
std::vector<double> causal_scores(const Scene& scene, const at::Tensor& queries, const at::Tensor& positions,
                                  const at::Tensor& keys, KeyScore score) {
  std::vector<double> scores(static_cast<size_t>(scene.source_len()), 0.0);
  const double scale = 1 / std::sqrt(static_cast<double>(keys.size(1)));
  for (int64_t i = 0; i < queries.size(0); ++i) {
    const auto seen = positions[i].item<int64_t>() + 1;
    const at::Tensor logits = at::mv(keys.narrow(0, 0, seen).to(at::kDouble), queries[i].to(at::kDouble)) * scale;
    const at::Tensor weights = at::softmax(logits, 0);
    for (int64_t j = 0; j < scene.source_len(); ++j) {
      const int64_t place = scene.context.prefix_len + j;
      const double weight = place < seen ? weights[place].item<double>() : 0.0;
      double& sum = scores[static_cast<size_t>(j)];
      sum = score == KeyScore::kMax ? std::max(sum, weight) : sum + weight / static_cast<double>(queries.size(0));
    }
  }
  return scores;
}

TEST(QueryReach, ScoresAreSharesOfTheWholeText) {
  const Scene& scene = Scene::of(at::kFloat);
  const KvCache text = whole_text(scene);
  for (const char* source : {"repeat_prefill", "context_prefill"}) {
    for (const int64_t max_queries : {100000, 60}) {
      const auto queries = queries_of(scene, source, {{"max_queries", max_queries}});
      const CompactionRequest request = scene_request(scene, *queries);
      for (const KeyScore score : {KeyScore::kMax, KeyScore::kMean}) {
        SCOPED_TRACE(std::string(source) + (score == KeyScore::kMax ? ", max" : ", mean"));
        const HeadProblem head = scene_head(scene, request, 1, 1);
        const at::Tensor keys = text.layer(1).head_keys(1);
        const std::vector<double> judge = causal_scores(scene, head.queries, queries->positions(), keys, score);
        const at::Tensor found = attention_scores(head, SoftmaxOver::kText, score);
        expect_scores(found, judge, 1e-3);
        EXPECT_TRUE(reach_notes(head, SoftmaxOver::kText).empty());
        // Without the range the same queries give larger weights.
        EXPECT_GT(attention_scores(head, SoftmaxOver::kArticle, score).sum().item<double>(),
                  1.01 * found.sum().item<double>());
      }
    }
  }
}

TEST(QueryReach, WindowsAreSharesOfTheWholeText) {
  const Scene& scene = Scene::of(at::kFloat);
  const KvCache text = whole_text(scene);
  for (const char* source : {"repeat_prefill", "context_prefill"}) {
    SCOPED_TRACE(source);
    const auto queries = queries_of(scene, source);
    const CompactionRequest request = scene_request(scene, *queries);
    const HeadProblem head = scene_head(scene, request, 0, 1);
    const int64_t n_tokens = 20;
    const at::Tensor window = head.window_queries(n_tokens);
    const at::Tensor positions = queries->window_reach(0, 1, n_tokens).positions;
    EXPECT_TRUE(at::equal(positions, queries->positions().view({2, -1}).slice(1, -n_tokens).flatten()));
    expect_scores(window_attention_scores(head, n_tokens, SoftmaxOver::kText, KeyScore::kMean),
                  causal_scores(scene, window, positions, text.layer(0).head_keys(1), KeyScore::kMean), 1e-3);
  }
}

// Every source's queries keep their own reach.
TEST(QueryReach, AMixKnowsWhatItsSourcesKnow) {
  const Scene& scene = Scene::of(at::kFloat);
  const Json part = {{"queries", "repeat_prefill"}, {"fraction", 0.5}};
  const auto mix = [&](const char* other) {
    const Json sources = {part, {{"queries", other}, {"fraction", 0.5}}};
    return queries_of(scene, "mix", {{"max_queries", 80}, {"sources", sources}});
  };
  const auto known = mix("context_prefill");
  EXPECT_TRUE(known->knows_reach());
  const QueryReach reach = known->reach(1, 0);
  EXPECT_EQ(reach.text_log_mass.size(0), known->n_queries());
  EXPECT_EQ(reach.positions.size(0), known->n_queries());
  EXPECT_FALSE(mix("random_vectors")->knows_reach());
}

TEST(QueryReach, SaysWhatItDoesNotKnow) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto random = queries_of(scene, "random_vectors");
  const CompactionRequest request = scene_request(scene, *random);
  HeadProblem head = scene_head(scene, request, 0, 0);
  EXPECT_EQ(reach_notes(head, SoftmaxOver::kText), (Json{{"heads_without_text", 1}}));
  EXPECT_TRUE(reach_notes(head, SoftmaxOver::kArticle).empty());
  // The template counts all the same.
  const at::Tensor keys = request.cache.layer(0).head_keys(0);
  const at::Tensor weights =
      at::softmax(at::mm(head.queries.to(at::kDouble), keys.to(at::kDouble).t()).div(std::sqrt(keys.size(1))), 1);
  const at::Tensor judge = weights.mean(0).narrow(0, scene.context.prefix_len, scene.source_len());
  const at::Tensor found = attention_scores(head, SoftmaxOver::kText, KeyScore::kMean);
  EXPECT_LT((found - judge).abs().max().item<double>(), 1e-5);

  const auto context = queries_of(scene, "context_prefill");
  const CompactionRequest first = scene_request(scene, *context);
  const std::vector<Compaction> made = scene.compact(*NamedMethod("h2o").operator->(), {every_head(40)});
  const CompactionRequest again{
      first.model, first.context, made[0].cache, first.compactable, first.queries, {every_head(20)}, 1};
  EXPECT_EQ(NamedMethod("h2o")->compact(again)[0].notes, (Json{{"heads_without_positions", kLayers * kKvHeads}}));
}

TEST(QueryReach, SinksAreCountedFromTheTextsFirstToken) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  const HeadProblem head = scene_head(scene, request, 0, 0);
  EXPECT_EQ(article_sinks(head, 4), 0);
  EXPECT_EQ(article_sinks(head, scene.context.prefix_len + 3), 3);
  EXPECT_EQ(article_sinks(head, 100000), scene.source_len());
  EXPECT_EQ(article_sinks(random_head(9, 1, 4, 1), 4), 4);
}

}  // namespace
}  // namespace kvc
