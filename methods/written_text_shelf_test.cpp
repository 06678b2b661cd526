// Evictions meant for text that a model writes to itself, against float64 loops.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <numeric>

#include "harness/model/rope.h"
#include "harness/testing/method_scores.h"
#include "harness/testing/naive_methods_eviction.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using List = std::vector<double>;

double dot(const List& a, const List& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

void softmax(List& row) {
  const double most = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (double& x : row) sum += x = std::exp(x - most);
  for (double& x : row) x /= sum;
}

struct RkvSetting {
  size_t window = 8, kernel = 7;
  double lambda = 0.1;
};

// keys: all of the head; the window's own `behind` at the end get no weight. Scores of all entries in front of them.
List naive_r_kv(const NaiveRows& keys, const NaiveRows& queries, size_t behind, const RkvSetting& setting) {
  const size_t n = keys.size(), front = n - behind, g = queries.size() / setting.window;
  List weights(front, 0.0);
  for (size_t w = 0; w < setting.window; ++w) {
    List row(front, -1e300);
    for (size_t j = 0; j < front; ++j) {
      for (size_t h = 0; h < g; ++h) row[j] = std::max(row[j], dot(queries[h * setting.window + w], keys[j]));
      row[j] /= std::sqrt(static_cast<double>(keys[0].size()));
    }
    softmax(row);
    for (size_t j = 0; j < front; ++j) weights[j] += row[j] / static_cast<double>(setting.window);
  }
  List alike(n, 0.0);
  for (size_t i = 0; i < n; ++i) {
    List cosines(n, 0.0);
    size_t last = 0;
    for (size_t j = 0; j < n; ++j) {
      if (i == j) continue;
      cosines[j] = dot(keys[i], keys[j]) / std::sqrt(dot(keys[i], keys[i]) * dot(keys[j], keys[j]));
      if (cosines[j] > 0.5) last = j;
    }
    cosines[last] = 0;
    for (size_t j = 0; j < n; ++j) alike[j] += cosines[j] / static_cast<double>(n);
  }
  softmax(alike);
  List scores;
  for (size_t j = 0; j < front; ++j) {
    double most = 0;
    const size_t half = setting.kernel / 2;
    for (size_t i = j >= half ? j - half : 0; i <= std::min(front - 1, j + half); ++i)
      most = std::max(most, weights[i]);
    scores.push_back(setting.lambda * most - (1 - setting.lambda) * alike[j]);
  }
  return scores;
}

TEST(RKv, WeighsAttentionAgainstRepetition) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  for (const RkvSetting setting : {RkvSetting{}, RkvSetting{16, 1, 0.5}}) {
    const Json options = {{"window", setting.window}, {"kernel", setting.kernel}, {"lambda", setting.lambda}};
    for (int64_t h = 0; h < kKvHeads; ++h) {
      const HeadProblem head = scene_head(scene, request, 1, h);
      const auto behind = std::min<size_t>(setting.window, static_cast<size_t>(scene.context.suffix_len));
      const List all =
          naive_r_kv(naive_rows(scene.full.layer(1).head_keys(h)),
                     naive_rows(head.window_queries(static_cast<int64_t>(setting.window))), behind, setting);
      const List judge(all.begin() + scene.context.prefix_len,
                       all.begin() + scene.context.prefix_len + scene.source_len());
      expect_scores(NamedMethod("r_kv", options)->scores(head), judge);
    }
  }
}

// Of three copies of one key among keys at right angles the later ones are repeated; without a say for attention the
// last one similar to each spares itself.
TEST(RKv, OfCopiesTheLastIsLeft) {
  HeadProblem head;
  head.keys = at::eye(16, at::kFloat).narrow(0, 0, 12).clone();
  head.keys[4] = head.keys[2].clone();
  head.keys[9] = head.keys[2].clone();
  head.values = head.keys;
  head.queries = at::randn({8, 16});
  head.window_queries = [](int64_t n) { return at::ones({n, 16}); };
  const at::Tensor scores = NamedMethod("r_kv", {{"lambda", 0.0}})->scores(head);
  EXPECT_GT(scores[9].item<float>(), scores[4].item<float>());
  EXPECT_GT(scores[9].item<float>(), scores[2].item<float>());
  EXPECT_GT(scores[5].item<float>(), scores[4].item<float>());
}

TEST(RKv, RefusesWhatIsOutOfRange) {
  const auto problem = [](const Json& options) {
    return usage_refusal([&] { NamedMethod("r_kv", options).fit(random_head(9, 4, 4, 1), 3); });
  };
  EXPECT_THAT(problem({{"lambda", 1.5}}), HasSubstr("must be 0 to 1; got 1.5"));
  EXPECT_THAT(problem({{"window", 129}}), HasSubstr("1 to 128"));
  EXPECT_THAT(problem({{"kernel", 4}}), HasSubstr("odd"));
}

TEST(TriAttention, IsTheTrigonometricSeriesOfTheMeanQuery) {
  const Scene& scene = Scene::of(at::kFloat);
  const CompactionRequest request = scene_request(scene, *scene.queries);
  const std::vector<float> frequencies = rope_frequencies(scene.model.spec()).frequencies;
  const auto half = frequencies.size();
  const at::Tensor positions = scene.queries->positions();
  const auto group_size = static_cast<size_t>(scene.model.spec().group_size());
  using Pair = std::complex<double>;
  const auto turn = [&](size_t f, int64_t by) {
    return std::polar(1.0, static_cast<double>(static_cast<float>(by) * frequencies[f]));
  };
  for (const int64_t max_offset : {1, 100}) {
    for (int64_t kv = 0; kv < kKvHeads; ++kv) {
      const HeadProblem head = scene_head(scene, request, 1, kv);
      const NaiveRows queries = naive_rows(head.queries), keys = naive_rows(head.keys);
      const size_t n = queries.size() / group_size;
      List judge(keys.size(), -1e300);
      for (size_t h = 0; h < group_size; ++h) {
        List scores(keys.size(), 0.0);
        for (size_t f = 0; f < half; ++f) {
          Pair mean = 0;
          double norms = 0;
          for (size_t i = 0; i < n; ++i) {
            const List& q = queries[h * n + i];
            const int64_t at = positions[static_cast<int64_t>(i)].item<int64_t>();
            mean += Pair(q[f], q[f + half]) * std::conj(turn(f, at)) / static_cast<double>(n);
            norms += std::hypot(q[f], q[f + half]) / static_cast<double>(n);
          }
          for (size_t j = 0; j < keys.size(); ++j) {
            // As in the paper: the key before its rotation, and how far it will be.
            const int64_t place = scene.context.prefix_len + static_cast<int64_t>(j);
            const Pair key = Pair(keys[j][f], keys[j][f + half]) * std::conj(turn(f, place));
            double series = 0, offsets = 0;
            for (int64_t offset = 1; offset <= max_offset; offset *= 2, ++offsets) {
              const auto distance = static_cast<double>(scene.full.next_position() + offset - place);
              series +=
                  (mean * std::conj(key) * std::polar(1.0, distance * static_cast<double>(frequencies[f]))).real();
            }
            scores[j] += series / offsets + (norms - std::abs(mean)) * std::abs(key);
          }
        }
        const double average = std::accumulate(scores.begin(), scores.end(), 0.0) / static_cast<double>(scores.size());
        double variance = 0;
        for (const double score : scores) variance += (score - average) * (score - average);
        const double deviation = std::sqrt(variance / static_cast<double>(scores.size()));
        for (size_t j = 0; j < judge.size(); ++j) judge[j] = std::max(judge[j], (scores[j] - average) / deviation);
      }
      const at::Tensor found = NamedMethod("tri_attention", {{"max_offset", max_offset}})->scores(head);
      ASSERT_EQ(found.size(0), static_cast<int64_t>(judge.size()));
      for (size_t j = 0; j < judge.size(); ++j) {
        EXPECT_NEAR(found[static_cast<int64_t>(j)].item<double>(), judge[j], 1e-3) << "head " << kv << ", entry " << j;
      }
    }
  }
}

TEST(TriAttention, NeedsQueriesThatStandSomewhere) {
  EXPECT_THAT(usage_refusal([] { NamedMethod("tri_attention").fit(random_head(9, 4, 4, 1), 3); }),
              HasSubstr("tri_attention turns queries back to before their rotation: there is no model"));
  EXPECT_THAT(usage_refusal([] {
                NamedMethod("tri_attention", {{"max_offset", 0}}).fit(random_head(9, 4, 4, 1), 3);
              }),
              HasSubstr("max_offset"));
}

}  // namespace
}  // namespace kvc
