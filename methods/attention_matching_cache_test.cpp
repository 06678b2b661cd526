// Attention Matching as a sweep calls it: by name and options, on whole caches.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "harness/api/compaction_method.h"
#include "harness/core/error.h"
#include "harness/testing/checks.h"
#include "harness/testing/naive_methods.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kPrefix = 3, kSuffix = 2, kDim = 16;

at::Tensor normal(std::vector<int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

// Reference queries made by hand, the same for every layer: (Hkv, n, d).
class GivenQueries final : public LayerQueries {
 public:
  explicit GivenQueries(at::Tensor queries) : queries_(std::move(queries)) {}
  at::Tensor layer(int64_t /*layer*/, const KvCache* /*compacted_below*/) const override { return queries_; }
  at::Tensor window(int64_t /*layer*/, int64_t n_tokens) const override {
    return queries_.narrow(1, queries_.size(1) - n_tokens, n_tokens);
  }
  int64_t n_queries() const override { return queries_.size(1); }
  int64_t bytes() const override { return static_cast<int64_t>(queries_.nbytes()); }

 private:
  at::Tensor queries_;
};

std::unique_ptr<CompactionMethod> method(const Json& options = Json::object()) {
  return Registry<CompactionMethod>::instance().create("attention_matching", options);
}

// One layer of the given heads' compactable entries, a template of random entries around each.
KvCache cache_of(const std::vector<at::Tensor>& keys, const std::vector<at::Tensor>& values) {
  std::vector<at::Tensor> all_keys, all_values;
  for (size_t h = 0; h < keys.size(); ++h) {
    all_keys.push_back(at::cat({normal({kPrefix, kDim}, 71 + h), keys[h], normal({kSuffix, kDim}, 81 + h)}));
    all_values.push_back(at::cat({normal({kPrefix, kDim}, 91 + h), values[h], normal({kSuffix, kDim}, 101 + h)}));
  }
  std::vector<LayerKv> layers;
  layers.push_back(pack_heads(all_keys, all_values, std::vector<at::Tensor>(keys.size())));
  return {std::move(layers), kPrefix + keys[0].size(0) + kSuffix};
}

Compaction compact(const CompactionMethod& am, const KvCache& cache, const at::Tensor& queries,
                   std::vector<int64_t> target_len) {
  static const Model model = tiny_model(1);
  static const Context context = make_context(model, "Not looked at.");
  const GivenQueries given(queries);
  return std::move(
      am.compact({model, context, cache, {kPrefix, kSuffix}, &given, {{{std::move(target_len)}}}, 1}).front());
}

struct Entries {
  at::Tensor keys, values, bias;
};

// The compactable ones of a head of layer 0.
Entries middle(const KvCache& cache, int64_t head) {
  const LayerKv& layer = cache.layer(0);
  const int64_t n = layer.head_len(head) - kPrefix - kSuffix;
  const auto cut = [&](const at::Tensor& all) { return all.defined() ? all.narrow(0, kPrefix, n) : all; };
  return {cut(layer.head_keys(head)), cut(layer.head_values(head)), cut(layer.head_bias(head))};
}

// Largest difference of outputs, and of masses relative to the first, over queries.
std::pair<double, double> difference(const Entries& a, const Entries& b, const at::Tensor& queries) {
  const NaiveAttention left = naive_attention(queries, a.keys, a.values, a.bias);
  const NaiveAttention right = naive_attention(queries, b.keys, b.values, b.bias);
  double output = 0, mass = 0;
  for (size_t i = 0; i < left.output.size(); ++i) {
    mass = std::max(mass, std::abs(std::exp(right.log_mass[i] - left.log_mass[i]) - 1));
    for (size_t c = 0; c < left.output[i].size(); ++c) {
      output = std::max(output, std::abs(left.output[i][c] - right.output[i][c]));
    }
  }
  return {output, mass};
}

std::string usage_error(const Json& options) {
  return error_of(ErrorKind::kUsage, [&] { method(options); });
}

TEST(AttentionMatchingOptions, AreReadAndChecked) {
  EXPECT_THAT(usage_error({{"bais", "none"}}), HasSubstr("did you mean 'bias'?"));
  EXPECT_THAT(usage_error({{"bias", "nlns"}}), HasSubstr("did you mean 'nnls'?"));
  EXPECT_THAT(usage_error({{"values", "copied"}}), HasSubstr("least_squares, ridge, copy"));
  EXPECT_THAT(usage_error({{"select", "greedy"}}), HasSubstr("highest_attention, omp"));
  EXPECT_THAT(usage_error({{"score", "sum"}}), HasSubstr("rms, max, mean"));
  EXPECT_THAT(usage_error({{"nnls_iters", -1}}), HasSubstr("nnls_iters"));
  EXPECT_THAT(usage_error({{"nnls_iters", 1.5}}), HasSubstr("nnls_iters"));
  EXPECT_THAT(usage_error({{"bias_bound", 0}}), HasSubstr("bias_bound"));
  EXPECT_THAT(usage_error({{"bias_bound", 51}}), HasSubstr("bias_bound"));
  const std::string two = usage_error({{"score", "sum"}, {"bias_bound", 0}});
  EXPECT_THAT(two, HasSubstr("score"));
  EXPECT_THAT(two, HasSubstr("bias_bound"));
  EXPECT_EQ(
      usage_error({{"bias", "none"}, {"values", "copy"}, {"score", "mean"}, {"nnls_iters", 0}, {"bias_bound", 5}}),
      "no error");
}

TEST(AttentionMatchingOptions, EachChangesTheResult) {
  const KvCache cache = cache_of({normal({40, kDim}, 1)}, {normal({40, kDim}, 2)});
  const at::Tensor queries = normal({1, 60, kDim}, 3) * 2;
  const Entries plain = middle(compact(*method(), cache, queries, {20}).cache, 0);
  ASSERT_TRUE(plain.bias.defined());
  const Entries no_bias = middle(compact(*method({{"bias", "none"}}), cache, queries, {20}).cache, 0);
  EXPECT_FALSE(no_bias.bias.defined());
  EXPECT_FALSE(at::equal(no_bias.values, plain.values));
  const Entries copied = middle(compact(*method({{"values", "copy"}}), cache, queries, {20}).cache, 0);
  EXPECT_TRUE(at::equal(copied.bias, plain.bias));
  EXPECT_TRUE(copied.values.unsqueeze(1).eq(middle(cache, 0).values.unsqueeze(0)).all(-1).any(1).all().item<bool>());
  const Entries bound = middle(compact(*method({{"bias_bound", 0.1}}), cache, queries, {20}).cache, 0);
  EXPECT_GT(plain.bias.abs().max().item<float>(), 0.1001F);
  EXPECT_LE(bound.bias.abs().max().item<float>(), 0.1001F);
  EXPECT_FALSE(
      at::equal(middle(compact(*method({{"bias_bound", 0.1}, {"nnls_iters", 0}}), cache, queries, {20}).cache, 0).bias,
                bound.bias));
  EXPECT_FALSE(at::equal(middle(compact(*method({{"score", "max"}}), cache, queries, {20}).cache, 0).keys, plain.keys));
}

TEST(AttentionMatchingCache, AHeadThatKeepsEverythingIsUntouched) {
  const KvCache cache =
      cache_of({normal({30, kDim}, 1), normal({30, kDim}, 2)}, {normal({30, kDim}, 3), normal({30, kDim}, 4)});
  const Compaction whole = compact(*method(), cache, normal({2, 20, kDim}, 5), {30, 30});
  EXPECT_TRUE(at::equal(whole.cache.layer(0).keys, cache.layer(0).keys));
  EXPECT_TRUE(at::equal(whole.cache.layer(0).values, cache.layer(0).values));
  EXPECT_FALSE(whole.cache.layer(0).bias.defined());
  EXPECT_EQ(whole.notes, Json::object());  // nothing was solved
  // Beside a head that is fitted, its bias is zero.
  const Compaction mixed = compact(*method(), cache, normal({2, 20, kDim}, 5), {30, 10});
  EXPECT_TRUE(at::equal(middle(mixed.cache, 0).keys, middle(cache, 0).keys));
  EXPECT_TRUE(at::equal(middle(mixed.cache, 0).values, middle(cache, 0).values));
  EXPECT_EQ(middle(mixed.cache, 0).bias.count_nonzero().item<int64_t>(), 0);
  EXPECT_GT(middle(mixed.cache, 1).bias.count_nonzero().item<int64_t>(), 0);
}

// Nothing is lost when a compact cache is asked to keep everything it has.
TEST(AttentionMatchingCache, RecompactingToTheSameSizeKeepsEveryBit) {
  const KvCache cache =
      cache_of({normal({60, kDim}, 1), normal({60, kDim}, 2)}, {normal({60, kDim}, 3), normal({60, kDim}, 4)});
  const at::Tensor queries = normal({2, 200, kDim}, 5) * 2;
  const KvCache once = std::move(compact(*method(), cache, queries, {20, 7}).cache);
  const KvCache twice = std::move(compact(*method(), once, queries, {20, 7}).cache);
  EXPECT_TRUE(at::equal(twice.layer(0).keys, once.layer(0).keys));
  EXPECT_TRUE(at::equal(twice.layer(0).values, once.layer(0).values));
  EXPECT_TRUE(at::equal(twice.layer(0).bias, once.layer(0).bias));
  EXPECT_EQ(twice.layer(0).head_offsets, once.layer(0).head_offsets);
  EXPECT_EQ(twice.next_position(), cache.next_position());
}

// The old bias says how much mass an entry carries; a second compaction that forgot it would lose that mass.
TEST(AttentionMatchingCache, RecompactingCarriesTheMassOfTheFirstOne) {
  const KvCache cache = cache_of({normal({90, kDim}, 1) / 2}, {normal({90, kDim}, 3)});
  const at::Tensor queries = normal({1, 300, kDim}, 5);
  const KvCache once = std::move(compact(*method(), cache, queries, {30}).cache);
  const KvCache twice = std::move(compact(*method(), once, queries, {15}).cache);
  const double mass_twice = difference(middle(cache, 0), middle(twice, 0), queries[0]).second;
  EXPECT_LT(mass_twice, 0.5);
  // One layer whose bias is dropped in between.
  LayerKv bare = once.layer(0);
  bare.bias = at::Tensor();
  const KvCache forgetful({bare}, once.next_position());
  const KvCache lost = std::move(compact(*method(), forgetful, queries, {15}).cache);
  EXPECT_GT(difference(middle(cache, 0), middle(lost, 0), queries[0]).second, mass_twice);
}

// Where selection sees groups of equal keys: k of a group's c entries are kept, each carries c / k of its
// mass and the group's mean value, and no query can tell.
TEST(AttentionMatchingCache, DuplicatesAreServedExactly) {
  const std::vector<int64_t> multiplicity = {2, 3, 4, 5, 6};
  std::vector<int64_t> group;
  for (size_t j = 0; j < multiplicity.size(); ++j)
    group.insert(group.end(), static_cast<size_t>(multiplicity[j]), static_cast<int64_t>(j));
  const at::Tensor member = at::tensor(group, at::TensorOptions(at::kLong));
  const at::Tensor distinct = normal({5, kDim}, 1);
  const auto T = static_cast<int64_t>(group.size());
  const KvCache cache = cache_of({distinct.index_select(0, member)}, {normal({T, kDim}, 2)});
  const Compaction made = compact(*method(), cache, normal({1, 200, kDim}, 3) * 2, {T - 1});
  EXPECT_EQ(made.notes.at("bias_rank_deficient"), 1);
  EXPECT_EQ(made.notes.at("value_rank_deficient"), 1);

  const Entries kept = middle(made.cache, 0);
  const at::Tensor kept_group = (kept.keys.unsqueeze(1) - distinct.unsqueeze(0)).abs().amax(-1).argmin(1);
  for (int64_t j = 0; j < 5; ++j) {
    const at::Tensor rows = kept_group.eq(j).nonzero().squeeze(1);
    ASSERT_GT(rows.numel(), 0);
    const double expected =
        std::log(static_cast<double>(multiplicity[static_cast<size_t>(j)]) / static_cast<double>(rows.numel()));
    EXPECT_LT((kept.bias.index_select(0, rows) - expected).abs().max().item<float>(), 1e-4);
    const at::Tensor mean = middle(cache, 0).values.index_select(0, member.eq(j).nonzero().squeeze(1)).mean(0);
    EXPECT_LT((kept.values.index_select(0, rows) - mean).abs().max().item<float>(), 1e-3);
  }
  const auto [output, mass] = difference(middle(cache, 0), kept, normal({50, kDim}, 77));  // queries never seen
  EXPECT_LT(output, 1e-4);
  EXPECT_LT(mass, 1e-4);
}

// The heads of a group asking the same things weigh as much as one head asking them; what counts is the
// head's own queries, not its neighbour's.
TEST(AttentionMatchingCache, AGroupOfEqualQueryHeadsFitsLikeOne) {
  const KvCache cache =
      cache_of({normal({50, kDim}, 1), normal({50, kDim}, 2)}, {normal({50, kDim}, 3), normal({50, kDim}, 4)});
  const at::Tensor one = normal({2, 120, kDim}, 5) * 2;
  const KvCache single = std::move(compact(*method({{"nnls_iters", 0}}), cache, one, {12, 12}).cache);
  const KvCache group =
      std::move(compact(*method({{"nnls_iters", 0}}), cache, at::cat({one, one, one}, 1), {12, 12}).cache);
  EXPECT_TRUE(at::equal(single.layer(0).keys, group.layer(0).keys));
  EXPECT_LT((single.layer(0).bias - group.layer(0).bias).abs().max().item<float>(), 1e-5);
  EXPECT_LT((single.layer(0).values - group.layer(0).values).abs().max().item<float>(), 1e-4);
  // Other queries for head 1 leave head 0 alone.
  const at::Tensor other = at::stack({one[0], normal({120, kDim}, 6) * 2});
  const KvCache changed = std::move(compact(*method({{"nnls_iters", 0}}), cache, other, {12, 12}).cache);
  EXPECT_TRUE(at::equal(middle(single, 0).values, middle(changed, 0).values));
  EXPECT_FALSE(at::equal(middle(single, 1).values, middle(changed, 1).values));
}

}  // namespace
}  // namespace kvc
