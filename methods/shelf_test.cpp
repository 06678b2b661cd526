// Query-free evictions against float64 loops, and cases whose answer can be seen.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "harness/testing/method_scores.h"
#include "harness/testing/naive_methods_eviction.h"
#include "methods/parts/rotation.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// --- LagKV

// softmax over the part [first, first + lag) of the deviation of (x - min) / (max - min), min and max of the next part.
std::vector<double> naive_spread(const NaiveRows& rows, size_t first, size_t lag) {
  const size_t d = rows[0].size();
  std::vector<double> deviations;
  for (size_t i = first; i < first + lag; ++i) {
    std::vector<double> relative;
    for (size_t c = 0; c < d; ++c) {
      double least = kInfinity, most = -kInfinity;
      for (size_t j = first + lag; j < first + 2 * lag; ++j) {
        least = std::min(least, rows[j][c]);
        most = std::max(most, rows[j][c]);
      }
      relative.push_back((rows[i][c] - least) / (most - least));
    }
    const double mean = std::accumulate(relative.begin(), relative.end(), 0.0) / static_cast<double>(d);
    double squares = 0;
    for (const double x : relative) squares += (x - mean) * (x - mean);
    deviations.push_back(std::sqrt(squares / static_cast<double>(d - 1)));
  }
  double sum = 0;
  for (const double x : deviations) sum += std::exp(x);
  for (double& x : deviations) x = std::exp(x) / sum;
  return deviations;
}

TEST(LagKv, ScoresEqualFloat64Loops) {
  constexpr size_t kLength = 90, kLag = 20, kSink = 3;  // four parts and 7 entries behind them
  const HeadProblem head = random_head(kLength, 1, 16, 31);
  const NaiveRows keys = naive_rows(head.keys), values = naive_rows(head.values);
  std::vector<double> raw(kLength), ranked(kLength);
  for (size_t i = 0; i < kLength; ++i) {
    raw[i] = ranked[i] = i < kSink ? kInfinity : 1 + static_cast<double>(i + 1) / kLength;
  }
  for (size_t part = 0; part < 3; ++part) {
    const size_t first = kSink + part * kLag;
    const std::vector<double> k = naive_spread(keys, first, kLag), v = naive_spread(values, first, kLag);
    for (size_t i = 0; i < kLag; ++i) {
      raw[first + i] = (k[i] + v[i]) / 2;
      int64_t below = 0;
      for (size_t j = 0; j < kLag; ++j) below += k[j] + v[j] < k[i] + v[i] ? 1 : 0;
      ranked[first + i] = static_cast<double>(below) / kLag;
    }
  }
  const Json options = {{"n_sink", kSink}, {"lag_size", kLag}};
  expect_scores(NamedMethod("lagkv", options)->scores(head), ranked);
  Json across = options;
  across["cross_scoring"] = true;
  expect_scores(NamedMethod("lagkv", across)->scores(head), raw);
}

TEST(LagKv, AShortHeadKeepsSinksAndTheMostRecent) {
  EXPECT_THAT(NamedMethod("lagkv", {{"n_sink", 2}}).indices(random_head(50, 1, 8, 1), 5),
              ElementsAre(0, 1, 49, 48, 47));
}

TEST(LagKv, TakesChannelsWithoutSpread) {
  HeadProblem head = random_head(12, 1, 4, 1);
  head.keys.select(1, 2).fill_(3);
  head.values.zero_();
  EXPECT_TRUE(NamedMethod("lagkv", {{"n_sink", 0}, {"lag_size", 4}})->scores(head).isfinite().all().item<bool>());
}

// --- CurDKV

std::vector<double> naive_shares(const at::Tensor& tensor, size_t window) {
  const NaiveRows rows = naive_rows(tensor);
  std::vector<double> squares;
  for (const auto& row : rows) {
    squares.push_back(std::inner_product(row.begin(), row.end(), row.begin(), 0.0));
  }
  std::vector<double> shares = squares;
  for (size_t i = 0; window > 0 && i < squares.size(); ++i) {
    double sum = 0;
    for (size_t j = i / window * window; j < std::min(squares.size(), (i / window + 1) * window); ++j)
      sum += squares[j];
    shares[i] = squares[i] / sum;
  }
  return shares;
}

TEST(CurDkv, ScoresEqualFloat64Loops) {
  const HeadProblem head = random_head(75, 1, 16, 5);
  for (const size_t window : {0, 16}) {
    const std::vector<double> k = naive_shares(head.keys, window), v = naive_shares(head.values, window);
    for (const std::string leverage : {"kv_product", "kv_avg", "key", "value"}) {
      SCOPED_TRACE(leverage + ", window " + std::to_string(window));
      std::vector<double> scores;
      for (size_t i = 0; i < k.size(); ++i) {
        scores.push_back(leverage == "key"      ? k[i]
                         : leverage == "value"  ? v[i]
                         : leverage == "kv_avg" ? (k[i] + v[i]) / 2
                                                : k[i] * v[i]);
      }
      const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
      for (double& score : scores) score /= sum;
      scores[0] = scores[1] = kInfinity;
      expect_scores(NamedMethod("curdkv", {{"n_sink", 2}, {"leverage", leverage}, {"window", window}})->scores(head),
                    scores);
    }
  }
}

TEST(CurDkv, TakesWindowsOfZeros) {
  HeadProblem head = random_head(40, 1, 4, 1);
  head.keys.narrow(0, 16, 16).zero_();
  EXPECT_TRUE(NamedMethod("curdkv", {{"n_sink", 0}})->scores(head).isfinite().all().item<bool>());
}

// --- leverage scores

// x (X^T X + 0.01)^-1 x by the eigenvectors of X^T X.
at::Tensor naive_leverage(const at::Tensor& keys) {
  const at::Tensor x = (keys - keys.mean(0, true)).to(at::kDouble);
  const auto [values, vectors] = at::linalg_eigh(at::mm(x.t(), x));
  return at::mm(x, vectors).square().div(values + 0.01).sum(1);
}

std::vector<double> as_list(const at::Tensor& x) {
  return {x.const_data_ptr<double>(), x.const_data_ptr<double>() + x.numel()};
}

TEST(Leverage, ExactScoresEqualTheEigenvectors) {
  const HeadProblem head = random_head(70, 1, 16, 8);
  expect_scores(NamedMethod("leverage", {{"sketch", 0}})->scores(head),
                as_list(naive_leverage(head.keys.to(at::kDouble))));
}

// Keys in a plane but for one.
TEST(Leverage, KeepsTheKeyThatNoOthersMake) {
  HeadProblem head = random_head(60, 1, 8, 2);
  head.keys.slice(1, 2).zero_();
  head.keys[37][5] = 4;
  EXPECT_THAT(NamedMethod("leverage", {{"sketch", 0}}).indices(head, 1), ElementsAre(37));
  EXPECT_THAT(NamedMethod("leverage").indices(head, 1), ElementsAre(37));
}

// Rotation says nothing about a key: it is undone first.
TEST(Leverage, ScoresKeysBeforeTheirRotation) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  const HeadProblem head = scene_head(scene, request, 1, 0);
  at::Tensor plain = at::empty_like(head.keys);
  const std::vector<float> frequencies = rope_frequencies(scene.model.spec()).frequencies;
  for (int64_t i = 0; i < plain.size(0); ++i) {
    for (int64_t c = 0; c < 8; ++c) {
      const double angle = frequencies[static_cast<size_t>(c)] * static_cast<double>(scene.context.prefix_len + i);
      const double a = head.keys[i][c].item<double>(), b = head.keys[i][c + 8].item<double>();
      plain[i][c] = a * std::cos(angle) + b * std::sin(angle);
      plain[i][c + 8] = b * std::cos(angle) - a * std::sin(angle);
    }
  }
  EXPECT_LT((unrotated_keys(head) - plain).abs().max().item<double>(), 1e-4);
  expect_scores(NamedMethod("leverage", {{"sketch", 0}})->scores(head), as_list(naive_leverage(plain.to(at::kDouble))),
                1e-3);
  const std::vector<Compaction> made = scene.compact(*NamedMethod("h2o").operator->(), {every_head(40)});
  const CompactionRequest again{
      request.model, request.context, made[0].cache, request.compactable, nullptr, {every_head(20)}, 1};
  EXPECT_EQ(NamedMethod("leverage")->compact(again)[0].notes, (Json{{"heads_rotated", kLayers * kKvHeads}}));
}

// --- KeyDiff, block by block

TEST(KeyDiffBlocks, AreCutAsALoopWouldCutThem) {
  const HeadProblem head = random_head(83, 1, 8, 12);
  for (const int64_t block : {1, 7, 200}) {
    for (const int64_t target_len : {5, 30}) {
      std::vector<int64_t> kept(static_cast<size_t>(target_len));
      std::iota(kept.begin(), kept.end(), 0);
      for (int64_t first = target_len; first < 83; first += block) {
        for (int64_t i = first; i < std::min<int64_t>(first + block, 83); ++i) kept.push_back(i);
        const std::vector<double> scores = naive_keydiff(head.keys.index_select(0, at::tensor(kept, at::kLong)));
        std::vector<size_t> order(kept.size());
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
        std::vector<int64_t> next;
        for (int64_t i = 0; i < target_len; ++i) next.push_back(kept[order[static_cast<size_t>(i)]]);
        kept = next;
      }
      EXPECT_EQ(NamedMethod("keydiff", {{"block", block}}).indices(head, target_len), kept)
          << "block " << block << ", target " << target_len;
    }
  }
}

// --- Q-Filters

TEST(QFilters, ScoresEqualSingularVectors) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  for (int64_t kv_head = 0; kv_head < kKvHeads; ++kv_head) {
    const HeadProblem head = scene_head(scene, request, 1, kv_head);
    const at::Tensor queries = head.queries.to(at::kDouble).view({2, -1, head.queries.size(1)});
    at::Tensor filter = at::zeros({head.queries.size(1)}, at::kDouble);
    for (int64_t h = 0; h < 2; ++h) {
      const at::Tensor direction = std::get<2>(at::linalg_svd(queries[h], /*full_matrices=*/false))[0];
      filter += direction * at::mv(queries[h], direction).mean().sign();
    }
    expect_scores(NamedMethod("q_filters")->scores(head), as_list(at::mv(head.keys.to(at::kDouble), filter / 2)), 1e-4);
  }
}

TEST(QFilters, KeepsKeysAlongTheQueries) {
  const HeadProblem head = written_head({{0, 3}, {2, 0}, {-3, 0}, {1, 1}}, {{5, 0.1F}, {4, -0.2F}, {-1, 0}});
  EXPECT_THAT(NamedMethod("q_filters").indices(head, 4), ElementsAre(1, 3, 0, 2));
}

// --- CriticalKV and ChunkKV, around other methods

TEST(CriticalKv, HalfByScoresHalfByWhatValuesWrite) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  const HeadProblem head = scene_head(scene, request, 1, 1);
  const std::vector<double> base = naive_attention_scores(head.queries, head.keys, head.bias, "mean");
  const NaiveRows projection = naive_rows(scene.model.decoder().weights().layers[1].attention_output);
  const NaiveRows values = naive_rows(head.values);
  const size_t d = values[0].size();
  std::vector<double> weighted;
  for (size_t i = 0; i < base.size(); ++i) {
    double norm = 0;
    for (const size_t query_head : {2, 3}) {  // of KV head 1
      for (const auto& row : projection) {
        double written = 0;
        for (size_t c = 0; c < d; ++c) written += row[query_head * d + c] * values[i][c];
        norm += std::abs(written) / 2;
      }
    }
    weighted.push_back((base[i] + 1e-4) * norm);
  }
  const auto order_of = [](const std::vector<double>& scores) {
    std::vector<int64_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
    });
    return order;
  };
  std::vector<int64_t> expected = order_of(base);
  expected.resize(7);
  for (const int64_t i : expected) weighted[static_cast<size_t>(i)] = -1;
  const std::vector<int64_t> rest = order_of(weighted);
  expected.insert(expected.end(), rest.begin(), rest.begin() + 8);
  const Json inner = {{"method", "h2o"}, {"softmax_over", "article"}};
  EXPECT_EQ(NamedMethod("critical_kv", {{"scores", inner}}).indices(head, 15), expected);
  EXPECT_THAT(usage_refusal([&] {
                NamedMethod("critical_kv", {{"scores", {{"method", "keydiff"}}}}).fit(head, 3);
              }),
              HasSubstr("has negative ones"));
  EXPECT_THAT(usage_refusal([&] {
                NamedMethod("critical_kv", {{"scores", inner}}).fit(random_head(9, 4, 4, 1), 3);
              }),
              HasSubstr("there is no model"));
}

TEST(ChunkKv, KeepsTheBestChunksOfTheLayer) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  std::vector<double> sums(static_cast<size_t>(scene.source_len()), 0.0);
  for (int64_t h = 0; h < kKvHeads; ++h) {
    const HeadProblem head = scene_head(scene, request, 1, h);
    const std::vector<double> own = naive_attention_scores(head.queries, head.keys, head.bias, "mean");
    for (size_t i = 0; i < own.size(); ++i) sums[i] += own[i];
  }
  std::vector<std::pair<double, size_t>> chunks;  // (minus the mean, first entry)
  for (size_t first = 0; first < sums.size(); first += 8) {
    const size_t end = std::min(first + 8, sums.size());
    chunks.emplace_back(
        -std::accumulate(sums.begin() + static_cast<int64_t>(first), sums.begin() + static_cast<int64_t>(end), 0.0) /
            static_cast<double>(end - first),
        first);
  }
  std::sort(chunks.begin(), chunks.end());
  std::vector<int64_t> expected;
  for (const auto& [score, first] : chunks) {
    for (size_t i = first; i < std::min(first + 8, sums.size()); ++i) expected.push_back(static_cast<int64_t>(i));
  }
  const Json inner = {{"method", "h2o"}, {"softmax_over", "article"}};
  const NamedMethod method("chunk_kv", {{"scores", inner}, {"chunk_length", 8}});
  for (const int64_t target_len : {8, 21, 48}) {
    for (int64_t h = 0; h < kKvHeads; ++h) {
      const HeadFit fit = method.fit(scene_head(scene, request, 1, h), target_len);
      const std::vector<int64_t> found(fit.indices.const_data_ptr<int64_t>(),
                                       fit.indices.const_data_ptr<int64_t>() + target_len);
      EXPECT_EQ(found, std::vector<int64_t>(expected.begin(), expected.begin() + target_len));
      EXPECT_TRUE(fit.notes.empty());
    }
  }
}

TEST(AroundOthers, RefusesWhatHasNoScores) {
  const auto problem = [](const std::string& name, const Json& scores) {
    return usage_refusal([&] { NamedMethod(name, {{"scores", scores}}); });
  };
  EXPECT_THAT(problem("chunk_kv", {{"method", "chunk_kv"}}), HasSubstr("a chunk_kv method within a chunk_kv one"));
  EXPECT_THAT(problem("critical_kv", {{"method", "full_cache"}}), HasSubstr("scores no entries"));
  EXPECT_THAT(usage_refusal([] {
                NamedMethod("chunk_kv", {{"scores", {{"method", "random_keys"}}}}).fit(random_head(9, 1, 4, 1), 2);
              }),
              HasSubstr("has no scores"));
}

TEST(Shelf, RefusesOptionsOutOfRange) {
  const auto problem = [](const std::string& name, const Json& options) {
    return usage_refusal([&] { NamedMethod(name, options); });
  };
  EXPECT_THAT(problem("lagkv", {{"lag_size", 0}}), HasSubstr("must be 1 or more; got 0"));
  EXPECT_THAT(problem("curdkv", {{"leverage", "kv"}}), HasSubstr("kv_product, kv_avg, key or value"));
  EXPECT_THAT(problem("leverage", {{"sketch", -1}}), HasSubstr("must be 0 to 4096; got -1"));
  EXPECT_THAT(problem("keydiff", {{"block", -1}}), HasSubstr("must be 0 or more; got -1"));
  EXPECT_THAT(problem("kvzip", {{"softmax_over", "all"}}), HasSubstr("text or article"));
}

}  // namespace
}  // namespace kvc
