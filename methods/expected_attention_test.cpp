// Expected attention: float64 loops, the mean of many queries, and what it asks of its queries.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "harness/testing/method_scores.h"
#include "harness/testing/naive_methods_eviction.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

// Of layer 0, a query depends on its token alone until it is rotated: turned back, equal tokens have equal queries.
TEST(ExpectedAttention, PositionsOfQueriesTurnThemBack) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto queries = Registry<QuerySource>::instance()
                           .create("context_prefill", {{"max_queries", 200}})
                           ->make({scene.model, scene.context, scene.full, 5});
  const at::Tensor positions = queries->positions();
  ASSERT_EQ(positions.numel(), queries->n_queries());
  const std::vector<float> narrow = rope_frequencies(scene.model.spec()).frequencies;
  const at::Tensor head = queries->layer(0, nullptr).select(0, 1);
  const int64_t n_tokens = positions.numel() / scene.model.spec().group_size();
  std::map<int64_t, std::vector<double>> first_of_token;
  int64_t n_compared = 0;
  for (int64_t i = 0; i < n_tokens; ++i) {
    const int64_t p = positions[i].item<int64_t>();
    std::vector<double> u(16);
    for (int64_t c = 0; c < 8; ++c) {
      const double angle = narrow[static_cast<size_t>(c)] * static_cast<double>(p);
      const double x = head[i][c].item<double>(), y = head[i][c + 8].item<double>();
      u[static_cast<size_t>(c)] = x * std::cos(angle) + y * std::sin(angle);
      u[static_cast<size_t>(c) + 8] = y * std::cos(angle) - x * std::sin(angle);
    }
    const auto [known, is_new] = first_of_token.emplace(scene.context.tokens[static_cast<size_t>(p)], u);
    for (size_t c = 0; !is_new && c < u.size(); ++c) EXPECT_NEAR(u[c], known->second[c], 1e-4);
    n_compared += is_new ? 0 : 1;
  }
  EXPECT_GT(n_compared, 20);
}

// Queries as given, of known positions.
class GivenQueries final : public LayerQueries {
 public:
  GivenQueries(at::Tensor queries, at::Tensor positions)
      : queries_(std::move(queries)), positions_(std::move(positions)) {}
  at::Tensor layer(int64_t, const KvCache*) const override { return queries_; }
  at::Tensor window(int64_t, int64_t) const override { return {}; }
  at::Tensor positions() const override { return positions_; }
  int64_t n_queries() const override { return queries_.size(1); }
  int64_t bytes() const override { return 0; }

 private:
  at::Tensor queries_, positions_;
};

NaiveExpectation naive_expectation(const Scene& scene, const HeadProblem& head, const at::Tensor& positions) {
  const std::vector<float> narrow = rope_frequencies(scene.model.spec()).frequencies;
  NaiveExpectation naive;
  naive.queries = head.queries;
  naive.positions.assign(positions.const_data_ptr<int64_t>(), positions.const_data_ptr<int64_t>() + positions.numel());
  naive.keys = head.keys;
  naive.values = head.values;
  naive.bias = head.bias;
  naive.group_size = scene.model.spec().group_size();
  naive.frequencies.assign(narrow.begin(), narrow.end());
  naive.next_position = scene.full.next_position();
  return naive;
}

// The scores without their logarithm, over the article alone unless the options say otherwise.
at::Tensor expected_weights(Json options, const HeadProblem& head) {
  if (!options.contains("softmax_over")) options["softmax_over"] = "article";
  return NamedMethod("expected_attention", options)->scores(head).exp();
}

TEST(ExpectedAttention, EqualsFloat64Loops) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Scene& scene = Scene::of(dtype);
    const CompactionRequest request = scene_request(scene, *scene.queries);
    const at::Tensor positions = request.queries->positions();
    HeadProblem head = scene_head(scene, request, 1, 0);
    NaiveExpectation naive = naive_expectation(scene, head, positions);
    naive.n_future = 40;
    naive.n_sink = 4;
    const int64_t sinks = scene.context.prefix_len + 4;  // counted from the text's first token
    expect_scores(expected_weights({{"n_future", 40}, {"n_sink", sinks}}, head), naive_expected_attention(naive), 1e-3);
    naive.use_covariance = naive.use_value_norm = false;
    naive.n_sink = 0;
    expect_scores(
        expected_weights({{"n_future", 40}, {"n_sink", 0}, {"use_covariance", false}, {"use_value_norm", false}}, head),
        naive_expected_attention(naive), 1e-3);
    head.bias = naive.bias = normal_numbers({head.keys.size(0)}, 3);
    naive.use_covariance = naive.use_value_norm = true;
    naive.epsilon = 0.02;
    expect_scores(expected_weights({{"n_future", 40}, {"n_sink", 0}, {"epsilon", 0.02}}, head),
                  naive_expected_attention(naive), 1e-3);
  }
}

// The published sum runs over the template too, but for the text's first entries.
TEST(ExpectedAttention, SumsOverTheWholeContext) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  const HeadProblem head = scene_head(scene, request, 1, 1);
  NaiveExpectation whole = naive_expectation(scene, head, request.queries->positions());
  whole.keys = request.cache.layer(1).head_keys(1);
  whole.values = request.cache.layer(1).head_values(1);
  whole.n_future = 40;
  for (const int64_t n_sink : {0, 4}) {
    whole.n_sink = n_sink;
    const std::vector<double> all = naive_expected_attention(whole);
    const auto first = all.begin() + scene.context.prefix_len;
    expect_scores(expected_weights({{"n_future", 40}, {"n_sink", n_sink}, {"softmax_over", "text"}}, head),
                  {first, first + scene.source_len()}, 1e-3);
  }
}

// With one position ahead and normal queries, what is expected is what those queries do on the mean, once they stand
// there.
TEST(ExpectedAttention, IsTheMeanOfManyQueries) {
  const Scene& scene = Scene::of(at::kFloat);
  const int64_t n = 20000, position = 31, next = scene.full.next_position();
  const at::Tensor centre = normal_numbers({1, 16}, 50);
  const at::Tensor drawn = centre + normal_numbers({2 * n, 16}, 51) * 0.7;  // two query heads
  const GivenQueries queries(drawn.expand({kKvHeads, 2 * n, 16}),
                             at::full({2 * n}, position, at::TensorOptions(at::kLong)));
  const CompactionRequest request = scene_request(scene, queries);
  const HeadProblem head = scene_head(scene, request, 0, 1);
  // From `position` to the next one.
  const at::Tensor angles = at::tensor(rope_frequencies(scene.model.spec()).frequencies) * (next - position);
  const at::Tensor x = drawn.narrow(1, 0, 8), y = drawn.narrow(1, 8, 8);
  const at::Tensor there = at::cat({x * angles.cos() - y * angles.sin(), y * angles.cos() + x * angles.sin()}, 1);
  const at::Tensor weights = at::mm(there, head.keys.t()).div(4.0).exp().view({2, n, -1}).mean(1);
  const at::Tensor expected = (weights / weights.sum(1, true)).mean(0);
  const NamedMethod method("expected_attention",
                           {{"n_future", 1}, {"softmax_over", "article"}, {"use_value_norm", false}});
  const at::Tensor error = (method->scores(head).exp() / expected - 1).abs();
  EXPECT_LT(error.max().item<double>(), 0.05);
  const NamedMethod bare(
      "expected_attention",
      {{"n_future", 1}, {"softmax_over", "article"}, {"use_value_norm", false}, {"use_covariance", false}});
  EXPECT_GT((bare->scores(head).exp() / expected - 1).abs().max().item<double>(), error.max().item<double>());
}

// Two query heads that ask the same are one.
TEST(ExpectedAttention, TakesEqualQueryHeadsForOne) {
  const Scene& scene = Scene::of(at::kFloat);
  const at::Tensor one = normal_numbers({30, 16}, 60);
  const at::Tensor positions = at::arange(7, 37).repeat({2});
  const GivenQueries queries(at::cat({one, one}).expand({kKvHeads, 60, 16}), positions);
  const CompactionRequest request = scene_request(scene, queries);
  const HeadProblem head = scene_head(scene, request, 0, 1);
  NaiveExpectation naive = naive_expectation(scene, head, positions);
  naive.queries = one;
  naive.group_size = 1;
  naive.n_future = 40;
  expect_scores(expected_weights({{"n_future", 40}, {"n_sink", 0}}, head), naive_expected_attention(naive), 1e-3);
}

TEST(ExpectedAttention, NeedsPositions) {
  const Scene& scene = Scene::of(at::kFloat);
  const NamedMethod method("expected_attention");
  EXPECT_THAT(usage_refusal([&] { method->scores(random_head(9, 4, 16, 1)); }), HasSubstr("there is no model"));
  const GivenQueries unknown(normal_numbers({kKvHeads, 8, 16}, 1), {});
  const CompactionRequest request = scene_request(scene, unknown);
  EXPECT_THAT(usage_refusal([&] { method->scores(scene_head(scene, request, 0, 0)); }),
              HasSubstr("knows no positions"));
  const GivenQueries wrong(normal_numbers({kKvHeads, 8, 16}, 1), at::arange(7));
  const CompactionRequest other = scene_request(scene, wrong);
  EXPECT_THAT(usage_refusal([&] { method->scores(scene_head(scene, other, 0, 0)); }), HasSubstr("differ in number"));
  for (const int64_t n : {7, 8}) {  // of two query heads
    const GivenQueries mixed(normal_numbers({kKvHeads, n, 16}, 1), at::arange(n));
    const CompactionRequest third = scene_request(scene, mixed);
    EXPECT_THAT(usage_refusal([&] { method->scores(scene_head(scene, third, 0, 0)); }),
                HasSubstr("not grouped by query head"));
  }
}

// Weights far below the smallest float still have their order.
TEST(ExpectedAttention, KeepsTheOrderOfTinyWeights) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  HeadProblem head = scene_head(scene, request, 1, 0);
  head.bias = at::arange(head.keys.size(0), at::TensorOptions(at::kFloat)) * -2000;
  const at::Tensor scores = NamedMethod("expected_attention", {{"n_sink", 0}})->scores(head);
  EXPECT_TRUE(scores.isfinite().all().item<bool>());
  EXPECT_TRUE(scores.diff().lt(0).all().item<bool>());
}

TEST(ExpectedAttention, OfNothingButSinks) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  const at::Tensor scores =
      NamedMethod("expected_attention", {{"n_sink", 100000}})->scores(scene_head(scene, request, 0, 0));
  EXPECT_TRUE(at::equal(scores, at::full({scene.source_len()}, std::numeric_limits<float>::infinity())));
}

}  // namespace
}  // namespace kvc
