// Evictions by reference queries that weigh heads, layers and values against each other, against float64 loops.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "harness/model/elementwise.h"
#include "harness/testing/method_scores.h"
#include "harness/testing/naive_methods_eviction.h"
#include "methods/parts/rotation.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using List = std::vector<double>;

// Weights of one query (row of `queries`) over `keys`, as a share of them alone.
NaiveRows naive_weights(const at::Tensor& queries, const at::Tensor& keys, double scale) {
  const NaiveRows q = naive_rows(queries), k = naive_rows(keys);
  NaiveRows weights;
  for (const List& query : q) {
    List row;
    for (const List& key : k) row.push_back(scale * std::inner_product(query.begin(), query.end(), key.begin(), 0.0));
    const double most = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (double& x : row) sum += x = std::exp(x - most);
    for (double& x : row) x /= sum;
    weights.push_back(row);
  }
  return weights;
}

double inverse_root(const at::Tensor& keys) {
  return 1 / std::sqrt(static_cast<double>(keys.size(1)));
}

// |W_o v_j| of one query head, by rows of the projection: L1 or L2.
List naive_output_norms(const Scene& scene, const HeadProblem& head, int64_t query_head, int p) {
  const NaiveRows projection =
      naive_rows(scene.model.decoder().weights().layers[static_cast<size_t>(head.layer)].attention_output);
  const NaiveRows values = naive_rows(head.values);
  const size_t d = values[0].size(), first = static_cast<size_t>(query_head) * d;
  List norms;
  for (const List& value : values) {
    double sum = 0;
    for (const List& row : projection) {
      double written = 0;
      for (size_t c = 0; c < d; ++c) written += row[first + c] * value[c];
      sum += p == 1 ? std::abs(written) : written * written;
    }
    norms.push_back(p == 1 ? sum : std::sqrt(sum));
  }
  return norms;
}

struct Article {  // every head of layer 1 of the scene
  Article() : request(scene_request(Scene::of(at::kFloat), *Scene::of(at::kFloat).queries)) {
    for (int64_t h = 0; h < kKvHeads; ++h) heads.push_back(scene_head(Scene::of(at::kFloat), request, 1, h));
  }
  const Scene& scene = Scene::of(at::kFloat);
  CompactionRequest request;
  std::vector<HeadProblem> heads;
  int64_t group_size = scene.model.spec().group_size();

  at::Tensor rows_of(const at::Tensor& queries, int64_t query_head) const {
    const int64_t n = queries.size(0) / group_size;
    return queries.narrow(0, query_head * n, n);
  }
};

// --- KVzip+

TEST(KvZipPlus, WeighsWeightsByInputAndOutput) {
  const Article article;
  const HeadProblem& head = article.heads[1];
  // The queries' text read again, what enters the layer taken down here.
  const Scene& scene = article.scene;
  std::vector<int64_t> tokens = make_question_prompt(scene.model, "Repeat the previous context verbatim.");
  const std::vector<int64_t> again = scene.context.article_tokens();
  tokens.insert(tokens.end(), again.begin(), again.end());
  const Decoder& decoder = scene.model.decoder();
  Tails tails = Tails::behind(scene.full, 1, static_cast<int64_t>(tokens.size()));
  const PackedTokens packed = PackedTokens::single(tokens);
  const std::vector<int64_t> places = decoder.positions(packed, scene.full, tails);
  at::Tensor hidden = decoder.embed(tokens);
  hidden = decoder.run_layer(0, hidden, places, packed.sequence_offsets, scene.full.layer(0), tails);
  const NaiveRows inputs =
      naive_rows(rms_norm(hidden, decoder.weights().layers[1].attention_norm, decoder.spec().rms_norm_eps));
  ASSERT_EQ(static_cast<int64_t>(inputs.size()) * article.group_size, head.queries.size(0));
  List judge(static_cast<size_t>(head.keys.size(0)), 0.0);
  for (int64_t h = 0; h < article.group_size; ++h) {
    const NaiveRows weights = naive_weights(article.rows_of(head.queries, h), head.keys, inverse_root(head.keys));
    const List written = naive_output_norms(scene, head, article.group_size + h, 2);
    for (size_t i = 0; i < weights.size(); ++i) {
      const double norm = std::sqrt(std::inner_product(inputs[i].begin(), inputs[i].end(), inputs[i].begin(), 0.0));
      for (size_t j = 0; j < judge.size(); ++j) judge[j] = std::max(judge[j], weights[i][j] / norm * written[j]);
    }
  }
  const Json options = {{"output_weighted", true}, {"softmax_over", "article"}};
  expect_scores(NamedMethod("kvzip", options)->scores(head), judge);
  EXPECT_THAT(usage_refusal([&] { NamedMethod("kvzip", options).fit(random_head(9, 4, 4, 1), 3); }),
              HasSubstr("kvzip with output_weighted needs the model's output projection"));
  const auto vectors = Registry<QuerySource>::instance()
                           .create("random_vectors", {{"max_queries", 64}})
                           ->make({scene.model, scene.context, scene.full, 5});
  const CompactionRequest other = scene_request(scene, *vectors);
  EXPECT_THAT(usage_refusal([&] { NamedMethod("kvzip", options).fit(scene_head(scene, other, 1, 0), 3); }),
              HasSubstr("needs the hidden states behind its queries"));
}

// --- KVCompose

TEST(KvCompose, AddsTheLayersMeanToMeansOfMaxima) {
  const Article article;
  std::vector<List> own;
  for (const HeadProblem& head : article.heads) {
    List sum(static_cast<size_t>(head.keys.size(0)), 0.0);
    for (int64_t h = 0; h < article.group_size; ++h) {
      const List most = naive_attention_scores(article.rows_of(head.queries, h), head.keys, head.bias, "max");
      for (size_t j = 0; j < sum.size(); ++j) sum[j] += most[j] / static_cast<double>(article.group_size);
    }
    own.push_back(sum);
  }
  const NamedMethod method("kvcompose", {{"softmax_over", "article"}});
  for (size_t h = 0; h < own.size(); ++h) {
    List judge = own[h];
    for (const List& other : own) {
      for (size_t j = 0; j < judge.size(); ++j) judge[j] += other[j] / static_cast<double>(own.size());
    }
    expect_scores(method->scores(article.heads[h]), judge);
  }
  EXPECT_TRUE(method.fit(article.heads[0], 9).notes.empty());
}

// --- DefensiveKV

TEST(DefensiveKv, TakesTheWorstCaseBehindWhatHoldsMostWeight) {
  const Article article;
  const auto window = static_cast<size_t>(12), half = static_cast<size_t>(1);  // kernel 3
  const size_t T = static_cast<size_t>(article.heads[0].keys.size(0));
  std::vector<List> norms;
  List all_norms(T, 0.0);
  double recent = 0;
  std::vector<NaiveRows> weights;  // of each head, all query heads' windows
  for (size_t kv = 0; kv < article.heads.size(); ++kv) {
    const HeadProblem& head = article.heads[kv];
    norms.emplace_back(T, 0.0);
    for (int64_t h = 0; h < article.group_size; ++h) {
      const List here = naive_output_norms(article.scene, head, static_cast<int64_t>(kv) * article.group_size + h, 1);
      for (size_t j = 0; j < T; ++j) norms[kv][j] += here[j] / static_cast<double>(article.group_size);
    }
    for (size_t j = 0; j < T; ++j) all_norms[j] += norms[kv][j];
    weights.push_back(
        naive_weights(head.window_queries(static_cast<int64_t>(window)), head.keys, inverse_root(head.keys)));
    double sum = 0;
    for (const List& row : weights.back())
      sum += std::accumulate(row.end() - static_cast<int64_t>(window), row.end(), 0.0);
    recent += sum / static_cast<double>(weights.back().size()) / static_cast<double>(article.heads.size());
  }
  for (size_t kv = 0; kv < article.heads.size(); ++kv) {
    List worst(T, 0.0), mean(T, 0.0);
    for (const List& row : weights[kv]) {
      List smooth(T, 0.0);
      for (size_t j = 0; j < T; ++j) {
        for (size_t i = j >= half ? j - half : 0; i <= std::min(T - 1, j + half); ++i) smooth[j] += row[i] / 3;
        mean[j] += row[j] / static_cast<double>(weights[kv].size());
      }
      const double sum = std::accumulate(smooth.begin(), smooth.end(), 0.0);
      const double mass = std::accumulate(row.begin(), row.end(), 0.0);
      for (size_t j = 0; j < T; ++j) worst[j] = std::max(worst[j], smooth[j] / sum * mass);
    }
    const double least = std::accumulate(worst.begin(), worst.end(), 0.0) / static_cast<double>(T);
    List judge;
    for (size_t j = 0; j < T; ++j) judge.push_back(std::max(worst[j], least) * norms[kv][j] / all_norms[j]);
    std::vector<size_t> order(T);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return mean[a] > mean[b]; });
    const double whole = std::accumulate(mean.begin(), mean.end(), 0.0);
    double held = 0;
    int64_t n_first = 0;
    for (const size_t j : order) {
      held += mean[j] / whole;
      if (held >= 0.7 - recent) break;
      judge[j] = 1e6 * (1 + mean[j] / whole);
      ++n_first;
    }
    ASSERT_GT(n_first, 3);
    const Json options = {{"window", window}, {"kernel", 3}, {"mass_fraction", 0.7}, {"softmax_over", "article"}};
    expect_scores(NamedMethod("defensive_kv", options)->scores(article.heads[kv]), judge);
  }
}

// --- Compactor

// Of every head of a layer: leverage of the keys as the model has them before rotation, attention within chunks.
struct NaiveParts {
  List leverage, attention;
};

NaiveParts naive_parts(const HeadProblem& head, const at::Tensor& plain, const std::vector<at::Tensor>& by_query_head,
                       const std::vector<int64_t>& places, int64_t first, int64_t length, int64_t chunk) {
  NaiveParts parts;
  const at::Tensor x0 = plain.narrow(0, first, length).to(at::kDouble);
  const at::Tensor x = x0 - x0.mean(0, true);
  const auto [values, vectors] = at::linalg_eigh(at::mm(x.t(), x));
  const at::Tensor leverage = at::mm(x, vectors).square().div(values + 0.01).sum(1);
  for (int64_t j = 0; j < length; ++j) parts.leverage.push_back(leverage[j].item<double>());
  List sums(static_cast<size_t>(length), 0.0);
  for (int64_t begin = 0; begin < length; begin += chunk) {
    const int64_t n = std::min(chunk, length - begin);
    const at::Tensor keys = head.keys.narrow(0, first + begin, n);
    for (const at::Tensor& queries : by_query_head) {
      for (size_t i = 0; i < places.size(); ++i) {
        if (places[i] < first + begin || places[i] >= first + begin + n) continue;
        const NaiveRows row = naive_weights(queries.narrow(0, static_cast<int64_t>(i), 1), keys, 1);
        for (int64_t j = 0; j < n; ++j) {
          sums[static_cast<size_t>(begin + j)] +=
              row[0][static_cast<size_t>(j)] / static_cast<double>(by_query_head.size());
        }
      }
    }
  }
  const NaiveRows v = naive_rows(head.values.narrow(0, first, length));
  for (size_t j = 0; j < sums.size(); ++j)
    sums[j] *= std::sqrt(std::inner_product(v[j].begin(), v[j].end(), v[j].begin(), 0.0));
  parts.attention = naive_pooled(sums, 3, "avg");
  return parts;
}

void normalise(std::vector<List*> lists) {
  double sum = 0, count = 0, squares = 0;
  for (const List* list : lists) {
    sum += std::accumulate(list->begin(), list->end(), 0.0);
    count += static_cast<double>(list->size());
  }
  for (const List* list : lists) {
    for (const double x : *list) squares += (x - sum / count) * (x - sum / count);
  }
  for (List* list : lists) {
    for (double& x : *list) x = (x - sum / count) / std::sqrt(squares / (count - 1));
  }
}

TEST(Compactor, BlendsLeverageWithAttentionFromBothSides) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto queries = Registry<QuerySource>::instance()
                           .create("context_prefill", Json::object())
                           ->make({scene.model, scene.context, scene.full, 5});
  const CompactionRequest request = scene_request(scene, *queries);
  const int64_t T = scene.source_len(), prefix = scene.context.prefix_len, n_first = 3, n_last = 2;
  const int64_t group_size = scene.model.spec().group_size(), chunk = 40;
  std::vector<NaiveParts> parts;
  std::vector<HeadProblem> heads;
  for (int64_t h = 0; h < kKvHeads; ++h) {
    heads.push_back(scene_head(scene, request, 1, h));
    const int64_t n = heads.back().queries.size(0) / group_size;
    std::vector<at::Tensor> by_head;
    for (int64_t g = 0; g < group_size; ++g) by_head.push_back(heads.back().queries.narrow(0, g * n, n));
    std::vector<int64_t> places;
    for (int64_t i = 0; i < n; ++i) places.push_back(queries->positions()[i].item<int64_t>() - prefix);
    parts.push_back(
        naive_parts(heads.back(), unrotated_keys(heads.back()), by_head, places, n_first, T - n_first - n_last, chunk));
  }
  normalise({&parts[0].leverage, &parts[1].leverage});
  normalise({&parts[0].attention, &parts[1].attention});
  const Json options = {{"sketch", 0},
                        {"chunk", chunk},
                        {"n_first", prefix + n_first},
                        {"n_last", scene.context.suffix_len + n_last},
                        {"blending", 0.4}};
  for (int64_t h = 0; h < kKvHeads; ++h) {
    List judge(static_cast<size_t>(T), std::numeric_limits<double>::infinity());
    for (int64_t j = 0; j < T - n_first - n_last; ++j) {
      const auto at = static_cast<size_t>(j);
      judge[at + static_cast<size_t>(n_first)] =
          0.4 * parts[static_cast<size_t>(h)].leverage[at] + parts[static_cast<size_t>(h)].attention[at];
    }
    const at::Tensor found = NamedMethod("compactor", options)->scores(heads[static_cast<size_t>(h)]);
    for (int64_t j = 0; j < T; ++j) {
      const double wanted = judge[static_cast<size_t>(j)];
      if (std::isinf(wanted)) {
        EXPECT_EQ(found[j].item<double>(), wanted);
      } else {
        EXPECT_NEAR(found[j].item<double>(), wanted, 2e-3);
      }
    }
    const HeadFit fit = NamedMethod("compactor", options).fit(heads[static_cast<size_t>(h)], 20);
    EXPECT_TRUE(fit.notes.empty()) << fit.notes.dump();
  }
  // Queries of another text are laid over the article, and the record says so.
  const HeadProblem other = scene_head(scene, scene_request(scene, *scene.queries), 1, 0);
  const CompactionRequest repeated = scene_request(scene, *scene.queries);
  HeadProblem again = other;
  again.request = &repeated;
  EXPECT_EQ(NamedMethod("compactor").fit(again, 20).notes, (Json{{"heads_with_other_queries", 1}}));
}

// By default leverage counts as much as is evicted.
TEST(Compactor, FollowsTheTarget) {
  const HeadProblem head = random_head(100, 100, 8, 3);
  Json options = {{"sketch", 0}, {"chunk", 25}};
  for (const int64_t target_len : {20, 60}) {
    Json fixed = options;
    fixed["blending"] = 1 - static_cast<double>(target_len) / 100;
    EXPECT_EQ(NamedMethod("compactor", options).indices(head, target_len),
              NamedMethod("compactor", fixed).indices(head, target_len));
  }
  EXPECT_NE(NamedMethod("compactor", {{"sketch", 0}, {"blending", 0.0}}).indices(head, 30),
            NamedMethod("compactor", {{"sketch", 0}, {"blending", 50.0}}).indices(head, 30));
}

TEST(QueryShelf, RefusesOptionsOutOfRange) {
  const auto problem = [](const std::string& name, const Json& options) {
    return usage_refusal([&] { NamedMethod(name, options); });
  };
  EXPECT_THAT(problem("compactor", {{"blending", -0.5}}), HasSubstr("must be -1 or 0 to 1000; got -0.5"));
  EXPECT_THAT(problem("compactor", {{"chunk", 0}}), HasSubstr("must be 1 to 65536; got 0"));
  EXPECT_THAT(problem("kvcompose", {{"over_queries", "sum"}}), HasSubstr("max or mean"));
  EXPECT_THAT(problem("defensive_kv", {{"kernel", 4}}), HasSubstr("odd number"));
  EXPECT_THAT(problem("defensive_kv", {{"mass_fraction", 1.5}}), HasSubstr("0 to 1"));
  EXPECT_THAT(problem("grkv", {{"ridge", 0.0}}), HasSubstr("above 0"));
}

}  // namespace
}  // namespace kvc
