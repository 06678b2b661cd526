// GRKV's fits against systems that are written out and solved directly in float64.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/testing/method_scores.h"

namespace kvc {
namespace {

constexpr int64_t kQueries = 8;

// Layer 1's first head with the context's own queries: eight of them at the last position, turned pair by pair.
struct RefitScene {
  RefitScene()
      : source(Registry<QuerySource>::instance()
                   .create("context_prefill", Json::object())
                   ->make({scene.model, scene.context, scene.full, 5})),
        request(scene_request(scene, *source)),
        head(scene_head(scene, request, 1, 0)) {
    const int64_t group_size = scene.model.spec().group_size(), n = head.queries.size(0) / group_size;
    const auto frequencies = rope_frequencies(scene.model.spec()).frequencies;
    const auto half = static_cast<int64_t>(frequencies.size());
    std::vector<at::Tensor> rows;
    for (int64_t g = 0; g < group_size; ++g) {
      for (int64_t i = 0; i < kQueries; ++i) {
        const int64_t token = (n * i / kQueries + n * (i + 1) / kQueries - 1) / 2;
        const at::Tensor query = head.queries[g * n + token].to(at::kDouble);
        const auto steps =
            static_cast<double>(scene.full.next_position() - 1 - source->positions()[g * n + token].item<int64_t>());
        at::Tensor turned = query.clone();
        for (int64_t c = 0; c < half; ++c) {
          const double angle = steps * static_cast<double>(frequencies[static_cast<size_t>(c)]);
          const double low = query[c].item<double>(), high = query[c + half].item<double>();
          turned[c] = low * std::cos(angle) - high * std::sin(angle);
          turned[c + half] = high * std::cos(angle) + low * std::sin(angle);
        }
        rows.push_back(turned);
      }
    }
    queries = at::stack(rows);
  }

  at::Tensor all(bool keys) const {
    const LayerKv& layer = scene.full.layer(1);
    return (keys ? layer.head_keys(0) : layer.head_values(0)).to(at::kDouble);
  }
  // Template and the kept entries, these at their own places of the whole text.
  at::Tensor with_template(const at::Tensor& kept, bool keys) const {
    const int64_t p = scene.context.prefix_len, s = scene.context.suffix_len;
    const at::Tensor whole = all(keys);
    return at::cat({whole.narrow(0, 0, p), kept.to(at::kDouble), whole.narrow(0, whole.size(0) - s, s)});
  }
  at::Tensor weights(const at::Tensor& keys) const {
    return at::softmax(at::mm(queries, keys.t()) / std::sqrt(static_cast<double>(keys.size(1))), 1);
  }
  at::Tensor target() const { return at::mm(weights(all(true)), all(false)); }
  double objective(const HeadFit& fit, const HeadFit& evicted, double ridge) const {
    const at::Tensor output = at::mm(weights(with_template(fit.keys, true)), with_template(fit.values, false));
    const double moves =
        ((fit.keys - evicted.keys).square().sum() + (fit.values - evicted.values).square().sum()).item<double>();
    return 6.0 / kQueries * (output - target()).square().sum().item<double>() + ridge * moves;
  }

  const Scene& scene = Scene::of(at::kFloat);
  std::unique_ptr<LayerQueries> source;
  CompactionRequest request;
  HeadProblem head;
  at::Tensor queries;  // (g 8, d) float64
};

Json with(const Json& more) {
  Json options = {{"scores", {{"method", "keydiff"}}}, {"n_queries", kQueries}, {"guard", 0.0}};
  options.update(more);
  return options;
}

TEST(Grkv, ValuesAreTheRidgeRegression) {
  const RefitScene at;
  constexpr double kRidge = 0.02;
  constexpr int64_t kKept = 30;
  const HeadFit evicted = NamedMethod("keydiff").fit(at.head, kKept);
  const HeadFit fit =
      NamedMethod("grkv", with({{"ridge", kRidge}, {"value_cap", 10.0}, {"key_cap", 0.0}})).fit(at.head, kKept);
  EXPECT_TRUE(at::equal(fit.indices, evicted.indices));
  EXPECT_TRUE(at::equal(fit.keys, evicted.keys));
  const at::Tensor weights = at.weights(at.with_template(evicted.keys, true));
  const at::Tensor residual = at.target() - at::mm(weights, at.with_template(evicted.values, false));
  const at::Tensor a = weights.narrow(1, at.scene.context.prefix_len, kKept);
  constexpr double kWeight = 6.0 / kQueries;
  const at::Tensor normal = at::mm(a.t(), a) * kWeight + at::eye(kKept, at::kDouble) * kRidge;
  const at::Tensor delta = at::linalg_solve(normal, at::mm(a.t(), residual) * kWeight);
  EXPECT_GT(delta.abs().max().item<double>(), 1e-3);
  EXPECT_LT((fit.values.to(at::kDouble) - evicted.values.to(at::kDouble) - delta).abs().max().item<double>(), 1e-5);
  EXPECT_EQ(fit.notes, (Json{{"heads_with_new_values", 1}}));
}

TEST(Grkv, KeysFollowTheLinearisedOutput) {
  const RefitScene at;
  constexpr double kRidge = 5;  // far enough from singular that sixteen steps end at the solution
  constexpr int64_t kKept = 12;
  const HeadFit evicted = NamedMethod("keydiff").fit(at.head, kKept);
  const HeadFit fit =
      NamedMethod("grkv", with({{"ridge", kRidge}, {"value_cap", 0.0}, {"key_cap", 10.0}})).fit(at.head, kKept);
  // The derivative of the output by every number of the keys, by central differences.
  const at::Tensor values = at.with_template(evicted.values, false);
  const auto output = [&](const at::Tensor& keys) { return at::mm(at.weights(at.with_template(keys, true)), values); };
  const at::Tensor base = evicted.keys.to(at::kDouble);
  const int64_t d = base.size(1);
  std::vector<at::Tensor> columns;
  for (int64_t i = 0; i < kKept * d; ++i) {
    at::Tensor more = base.clone(), less = base.clone();
    more.view({-1})[i] += 1e-4;
    less.view({-1})[i] -= 1e-4;
    columns.push_back(((output(more) - output(less)) / 2e-4).flatten());
  }
  const at::Tensor jacobian = at::stack(columns, 1);
  constexpr double kWeight = 6.0 / kQueries;
  const at::Tensor normal = at::mm(jacobian.t(), jacobian) * kWeight + at::eye(kKept * d, at::kDouble) * kRidge;
  const at::Tensor delta =
      at::linalg_solve(normal, at::mv(jacobian.t(), (at.target() - output(base)).flatten()) * kWeight).view({kKept, d});
  EXPECT_GT(delta.abs().max().item<double>(), 1e-4);
  EXPECT_LT((fit.keys.to(at::kDouble) - base - delta).abs().max().item<double>(), 2e-6);
  EXPECT_TRUE(at::equal(fit.values, evicted.values));
}

TEST(Grkv, MovesNoFurtherThanItsCapsAndNeverMakesItWorse) {
  const RefitScene at;
  for (const int64_t t : {1, 10, 60}) {
    const HeadFit evicted = NamedMethod("keydiff").fit(at.head, t);
    const HeadFit fit = NamedMethod("grkv", with(Json::object())).fit(at.head, t);
    const auto moved = [](const at::Tensor& a, const at::Tensor& b) { return (a - b).norm().item<double>(); };
    EXPECT_LE(moved(fit.values, evicted.values), 0.1 * evicted.values.norm().item<double>() * (1 + 1e-6));
    EXPECT_LE(moved(fit.keys, evicted.keys), 0.025 * evicted.keys.norm().item<double>() * (1 + 1e-6));
    EXPECT_LE(at.objective(fit, evicted, 0.01), at.objective(evicted, evicted, 0.01) * (1 + 1e-9)) << t;
  }
}

TEST(Grkv, GuardsTheBestByScore) {
  const RefitScene at;
  const HeadFit fit = NamedMethod("grkv", with({{"guard", 0.25}})).fit(at.head, 20);
  const HeadFit evicted = NamedMethod("keydiff").fit(at.head, 20);  // best first
  EXPECT_TRUE(at::equal(fit.values.narrow(0, 0, 5), evicted.values.narrow(0, 0, 5)));
  EXPECT_TRUE(at::equal(fit.keys.narrow(0, 0, 5), evicted.keys.narrow(0, 0, 5)));
  EXPECT_GT((fit.values - evicted.values).narrow(0, 5, 15).abs().amax(1).min().item<double>(), 0);
}

}  // namespace
}  // namespace kvc
