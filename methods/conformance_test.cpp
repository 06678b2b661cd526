// What every registered method must keep, whoever wrote it, on a real context of a small model.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "harness/core/error.h"
#include "harness/testing/method_heads.h"
#include "harness/testing/method_scene.h"

namespace kvc {
namespace {

using ::testing::IsSupersetOf;

void expect_same_bits(const std::vector<Compaction>& a, const std::vector<Compaction>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(same_bits(a[i].cache, b[i].cache)) << what << ", budget " << i;
    EXPECT_EQ(a[i].notes, b[i].notes) << what << ", budget " << i;
  }
}

double mean_kl(const at::Tensor& reference, const at::Tensor& other) {
  const at::Tensor p = at::log_softmax(reference.to(at::kDouble), -1), q = at::log_softmax(other.to(at::kDouble), -1);
  return (p.exp() * (p - q)).sum(-1).mean().item<double>();
}

// A method with options: every registered one as it comes, and the branches that options open.
struct Variant {
  std::string name;
  Json options;
};

void PrintTo(const Variant& variant, std::ostream* out) {
  *out << variant.name << variant.options.dump();
}

std::vector<Variant> variants() {
  std::vector<Variant> list;
  for (const std::string& name : Registry<CompactionMethod>::instance().names()) {
    // Trained for a step: the suite asks some hundred times.
    const Json brief = {{"steps", 1}, {"batch_tokens", 64}, {"text_tokens", 64}, {"conversations", 2}};
    list.push_back({name, name == "cartridge" ? brief : Json::object()});
  }
  list.push_back({"attention_matching", {{"bias", "none"}}});
  list.push_back({"attention_matching", {{"values", "copy"}}});
  list.push_back({"attention_matching", {{"bias", "none"}, {"values", "copy"}, {"score", "max"}}});
  list.push_back({"attention_matching", {{"score", "mean"}, {"nnls_iters", 0}, {"bias_bound", 0.5}}});
  list.push_back({"h2o", {{"recent_fraction", 0.0}}});
  list.push_back({"h2o", {{"recent_fraction", 1.0}}});
  list.push_back({"cam", {{"recent_fraction", 1.0}, {"n_merged", 1}}});
  list.push_back({"d2o", {{"recent_fraction", 0.0}}});
  list.push_back({"expected_attention", {{"n_sink", 0}, {"epsilon", 0.02}, {"n_future", 1}}});
  list.push_back({"expected_attention", {{"use_covariance", false}, {"use_value_norm", false}}});
  list.push_back({"key_norm", {{"n_sink", 1000}}});
  list.push_back({"snapkv", {{"pool", "avg"}, {"window", 8}}});
  list.push_back({"snapkv", {{"kernel", 1}, {"window", 128}}});
  list.push_back({"curdkv", {{"leverage", "kv_avg"}, {"window", 0}}});
  list.push_back({"h2o", {{"softmax_over", "article"}}});
  list.push_back({"keydiff", {{"block", 16}}});
  list.push_back({"kvzip", {{"softmax_over", "article"}}});
  list.push_back({"lagkv", {{"lag_size", 8}}});
  list.push_back({"lagkv", {{"lag_size", 16}, {"cross_scoring", true}}});
  list.push_back({"leverage", {{"sketch", 0}}});
  list.push_back({"compactor", {{"chunk", 16}, {"sketch", 0}}});
  list.push_back({"compactor", {{"blending", 0.5}, {"n_first", 80}, {"n_last", 40}}});
  list.push_back({"defensive_kv", {{"kernel", 1}, {"window", 8}, {"mass_fraction", 0.0}}});
  list.push_back({"grkv", {{"scores", {{"method", "keydiff"}}}, {"n_queries", 8}, {"guard", 0.0}}});
  list.push_back({"kvcompose", {{"over_queries", "mean"}, {"value_norm", true}, {"add_layer_mean", false}}});
  list.push_back({"kvzip", {{"output_weighted", true}}});
  list.push_back({"r_kv", {{"window", 16}, {"kernel", 1}, {"lambda", 0.5}}});
  list.push_back({"tri_attention", {{"max_offset", 1}, {"norms", false}}});
  list.push_back({"simlayer_kv", {{"n_recent", 90}, {"threshold", 0.0}}});
  list.push_back({"streaming_llm", {{"n_sink", 80}, {"rerotate", true}}});
  list.push_back({"threshold", {{"scores", {{"method", "key_norm"}}}, {"above", -4.0}}});
  list.push_back({"streaming_llm", {{"n_sink", 0}}});
  list.push_back({"streaming_llm", {{"n_sink", 1000}}});
  return list;
}

// Keeps some entries as they are, values too.
bool only_evicts(const std::string& name) {
  static const std::set<std::string> names = {
      "chunk_kv", "compactor",   "critical_kv", "curdkv",        "defensive_kv", "expected_attention", "h2o",
      "key_norm", "keydiff",     "kvcompose",   "kvzip",         "lagkv",        "leverage",           "q_filters",
      "r_kv",     "random_keys", "snapkv",      "streaming_llm", "tova",         "tri_attention",      "truncate"};
  return names.count(name) > 0;
}

// Counts positions inside the cache: template and sinks move.
bool moves_positions(const Variant& variant) {
  return variant.options.value("rerotate", false);
}

// Makes new keys, of several old ones, by regression or by training.
bool makes_keys(const Variant& variant) {
  return variant.name == "d2o" || variant.name == "kv_merger" || variant.name == "cartridge" ||
         variant.name == "grkv" || moves_positions(variant);
}

// Decides by itself how much it keeps.
bool measures_its_size(const std::string& name) {
  return name == "threshold" || name == "simlayer_kv";
}

// Looks at the model's own numbers besides the head's.
bool needs_a_model(const Variant& variant) {
  return variant.name == "expected_attention" || variant.name == "critical_kv" || variant.name == "defensive_kv" ||
         variant.name == "grkv" || variant.name == "tri_attention" || variant.options.value("output_weighted", false) ||
         moves_positions(variant);
}

// Works on the text's own entries, and says so when it meets others.
bool refuses_compact_caches(const std::string& name) {
  return name == "chunked";
}

std::string test_name(const ::testing::TestParamInfo<Variant>& info) {
  std::string name = info.param.name + "_" + info.param.options.dump();
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return std::to_string(info.index) + "_" + name;
}

class EveryMethod : public ::testing::TestWithParam<Variant> {
 protected:
  EveryMethod() : method_(Registry<CompactionMethod>::instance().create(GetParam().name, GetParam().options)) {}

  // Budgets of a half, a fifth and a single entry, ragged ones, and everything.
  static std::vector<HeadBudget> budgets(const Scene& scene) {
    const int64_t T = scene.source_len();
    return {every_head(T), every_head(T / 2), every_head(T / 5), every_head(1), ragged(scene)};
  }

  template <class Check>
  void for_each_result(const Check& check) const {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Scene& scene = Scene::of(dtype);
      const std::vector<HeadBudget> asked = budgets(scene);
      const std::vector<Compaction> made = scene.compact(*method_, asked);
      ASSERT_EQ(made.size(), method_->needs_target() ? asked.size() : 1U);
      for (size_t b = 0; b < made.size(); ++b) check(scene, made[b].cache, asked[b]);
    }
  }

  // As for_each_result, for methods that keep a part of the given cache.
  template <class Check>
  void for_each_compact_cache(const Check& check) const {
    if (!method_->compacts_cache()) GTEST_SKIP() << "builds a cache of its own";
    for_each_result(check);
  }

  std::unique_ptr<CompactionMethod> method_;
};

INSTANTIATE_TEST_SUITE_P(Registered, EveryMethod, ::testing::ValuesIn(variants()), test_name);

TEST(Methods, AreAllRegistered) {
  EXPECT_THAT(Registry<CompactionMethod>::instance().names(),
              IsSupersetOf({"attention_matching", "cam", "d2o", "expected_attention", "full_cache", "h2o", "key_norm",
                            "kv_merger", "keydiff", "kvzip", "no_context", "random_keys", "snapkv", "streaming_llm",
                            "tova", "truncate"}));
}

TEST(Methods, SceneHasTemplateAndMoreQueriesThanEntries) {
  const Scene& scene = Scene::of(at::kFloat);
  EXPECT_GT(scene.context.prefix_len, 50);
  EXPECT_GT(scene.context.suffix_len, 0);
  EXPECT_EQ(scene.source_len(), static_cast<int64_t>(kArticle.size()));
  EXPECT_EQ(scene.full.next_position(), scene.template_len() + scene.source_len());
  EXPECT_GT(scene.queries->n_queries(), scene.source_len());
}

TEST_P(EveryMethod, KeepsTheBudgetTheTypeAndFiniteNumbers) {
  for_each_result([&](const Scene& scene, const KvCache& cache, const HeadBudget& budget) {
    ASSERT_EQ(cache.n_layers(), kLayers);
    ASSERT_EQ(cache.n_kv_heads(), kKvHeads);
    ASSERT_EQ(cache.head_dim(), scene.full.head_dim());
    for (int64_t l = 0; l < kLayers; ++l) {
      const LayerKv& layer = cache.layer(l);
      EXPECT_EQ(layer.keys.scalar_type(), scene.full.layer(l).keys.scalar_type());
      EXPECT_EQ(layer.keys.device(), scene.full.layer(l).keys.device());
      EXPECT_TRUE(layer.keys.isfinite().all().item<bool>());
      EXPECT_TRUE(layer.values.isfinite().all().item<bool>());
      if (layer.bias.defined()) {
        EXPECT_TRUE(layer.bias.isfinite().all().item<bool>());
      }
      // A text has one length in all heads, so it may only be compared with the whole budget (below).
      for (int64_t h = 0; method_->needs_target() && method_->compacts_cache() && h < kKvHeads; ++h) {
        EXPECT_LE(layer.head_len(h), scene.template_len() + budget.at(l, h)) << "layer " << l << ", head " << h;
      }
    }
    EXPECT_TRUE(scene.logits(cache).isfinite().all().item<bool>());
  });
}

TEST_P(EveryMethod, BytesAreThoseOfTheEntries) {
  for_each_result([&](const Scene& scene, const KvCache& cache, const HeadBudget& budget) {
    const int64_t element = scene.full.layer(0).keys.scalar_type() == at::kFloat ? 4 : 2;
    int64_t bytes = 0, allowed = 0;
    for (int64_t l = 0; l < kLayers; ++l) {
      const int64_t per_entry = 2 * element * cache.head_dim() + (cache.layer(l).bias.defined() ? 4 : 0);
      bytes += cache.layer(l).n_entries() * per_entry + 8 * (kKvHeads + 1);
      for (int64_t h = 0; h < kKvHeads; ++h) allowed += scene.template_len() + budget.at(l, h);
    }
    EXPECT_EQ(cache.bytes(), bytes);
    if (method_->needs_target()) {
      EXPECT_LE(cache.n_entries(), allowed);
    }
    if (method_->needs_target() && method_->compacts_cache()) {
      EXPECT_EQ(cache.n_entries(), allowed);  // a budget is spent whole
    }
    // Nothing of the uncompacted cache stays alive behind views.
    EXPECT_LE(cache.allocated_bytes(), bytes + 1024);
  });
}

TEST_P(EveryMethod, KeepsPositionsTemplateAndKeys) {
  for_each_compact_cache([&](const Scene& scene, const KvCache& cache, const HeadBudget& /*budget*/) {
    EXPECT_EQ(cache.next_position(), scene.full.next_position());
    for (int64_t l = 0; l < kLayers; ++l) {
      for (int64_t h = 0; h < kKvHeads; ++h) {
        const LayerKv &was = scene.full.layer(l), &is = cache.layer(l);
        const auto expect_kept = [&](int64_t from, int64_t to, int64_t n) {
          EXPECT_TRUE(same_bits(was.head_keys(h).narrow(0, from, n), is.head_keys(h).narrow(0, to, n)));
          EXPECT_TRUE(same_bits(was.head_values(h).narrow(0, from, n), is.head_values(h).narrow(0, to, n)));
          if (is.bias.defined()) {
            EXPECT_EQ(is.head_bias(h).narrow(0, to, n).count_nonzero().item<int64_t>(), 0);
          }
        };
        const int64_t prefix = scene.context.prefix_len, suffix = scene.context.suffix_len;
        ASSERT_GE(is.head_len(h), prefix + suffix);
        if (!moves_positions(GetParam())) expect_kept(0, 0, prefix);
        expect_kept(was.head_len(h) - suffix, is.head_len(h) - suffix, suffix);
        if (makes_keys(GetParam())) continue;
        // Keys between are distinct rows of the article's keys, bit for bit.
        const at::Tensor all = was.head_keys(h).narrow(0, prefix, scene.source_len());
        const at::Tensor kept = is.head_keys(h).narrow(0, prefix, is.head_len(h) - prefix - suffix);
        const at::Tensor matches = kept.unsqueeze(1).eq(all.unsqueeze(0)).all(-1);
        EXPECT_TRUE(matches.any(1).all().item<bool>()) << "layer " << l << ", head " << h;
        EXPECT_LE(matches.sum(0).max().item<int64_t>(), 1) << "layer " << l << ", head " << h;
      }
    }
  });
}

TEST_P(EveryMethod, LeavesTheRequestUntouched) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Scene& scene = Scene::of(dtype);
    const KvCache before = scene.full.clone();
    std::vector<at::Tensor> queries_before;
    for (int64_t l = 0; l < kLayers; ++l) queries_before.push_back(scene.queries->layer(l, nullptr).clone());
    const int n_threads = at::get_num_threads();
    scene.compact(*method_, budgets(scene));
    EXPECT_TRUE(same_bits(before, scene.full));
    for (int64_t l = 0; l < kLayers; ++l) {
      EXPECT_TRUE(same_bits(queries_before[static_cast<size_t>(l)], scene.queries->layer(l, nullptr)));
    }
    EXPECT_EQ(at::get_num_threads(), n_threads);
  }
}

TEST_P(EveryMethod, GivesTheSameBytesForTheSameSeedAndAnyNumberOfThreads) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Scene& scene = Scene::of(dtype);
    const std::vector<Compaction> first = scene.compact(*method_, budgets(scene));
    expect_same_bits(first, scene.compact(*method_, budgets(scene)), "again");
    // A forward pass is free to round by its threads.
    if (!method_->compacts_cache() || GetParam().name == "cartridge") continue;
    const int n_threads = at::get_num_threads();
    for (const int n : {1, 3}) {
      at::set_num_threads(n);
      const std::vector<Compaction> other = scene.compact(*method_, budgets(scene));
      at::set_num_threads(n_threads);
      expect_same_bits(first, other, std::to_string(n) + " threads");
    }
  }
}

// One call with several targets, in any order, gives to the last bit what a call for each gives.
TEST_P(EveryMethod, NestedTargetsEqualSeparateCalls) {
  if (!method_->needs_target()) GTEST_SKIP() << "takes no target";
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Scene& scene = Scene::of(dtype);
    const std::vector<HeadBudget> asked = budgets(scene);
    const std::vector<Compaction> together = scene.compact(*method_, asked);
    const std::vector<Compaction> reversed = scene.compact(*method_, {asked.rbegin(), asked.rend()});
    for (size_t b = 0; b < asked.size(); ++b) {
      const std::vector<Compaction> alone = scene.compact(*method_, {asked[b]});
      ASSERT_EQ(alone.size(), 1U);
      EXPECT_TRUE(same_bits(alone[0].cache, together[b].cache)) << "budget " << b;
      EXPECT_TRUE(same_bits(alone[0].cache, reversed[asked.size() - 1 - b].cache)) << "budget " << b << ", reversed";
      EXPECT_EQ(alone[0].notes, together[b].notes);
    }
  }
}

TEST_P(EveryMethod, ObeysTheBudget) {
  if (!method_->needs_target()) GTEST_SKIP() << "takes no target";
  const Scene& scene = Scene::of(at::kFloat);
  const std::vector<Compaction> made = scene.compact(*method_, {every_head(80), every_head(40), every_head(40)});
  EXPECT_LT(made[1].cache.n_entries(), made[0].cache.n_entries());
  EXPECT_GT((scene.logits(made[0].cache) - scene.logits(made[1].cache)).abs().max().item<float>(), 1e-4);
  EXPECT_TRUE(same_bits(made[1].cache, made[2].cache));
}

// --- caches that were compacted before: every head of its own length, with a bias

// Attention Matching's, so biases and values are fitted ones.
KvCache compacted(const Scene& scene, const HeadBudget& budget) {
  const auto method = Registry<CompactionMethod>::instance().create("attention_matching", Json::object());
  return std::move(scene.compact(*method, {budget})[0].cache);
}

const HeadBudget& unequal() {
  static const HeadBudget budget{{{60, 45}, {80, 31}}, {}};
  return budget;
}

std::vector<Compaction> compact_again(const Scene& scene, const CompactionMethod& method, const KvCache& cache,
                                      const std::vector<HeadBudget>& budgets) {
  return method.compact({scene.model,
                         scene.context,
                         cache,
                         {scene.context.prefix_len, scene.context.suffix_len},
                         scene.queries.get(),
                         method.needs_target() ? budgets : std::vector<HeadBudget>{},
                         1});
}

TEST_P(EveryMethod, KeepingEverythingOfACompactedCacheChangesNoLogits) {
  if (!method_->compacts_cache()) GTEST_SKIP() << "builds a cache of its own";
  if (measures_its_size(GetParam().name)) GTEST_SKIP() << "decides by itself how much it keeps";
  const Scene& scene = Scene::of(at::kFloat);
  for (const HeadBudget& budget : {unequal(), every_head(50)}) {
    const KvCache cache = compacted(scene, budget);
    ASSERT_TRUE(cache.layer(0).bias.defined());
    if (refuses_compact_caches(GetParam().name)) {
      EXPECT_THROW(compact_again(scene, *method_, cache, {budget}), Error);
      continue;
    }
    const std::vector<Compaction> made = compact_again(scene, *method_, cache, {budget});
    EXPECT_EQ(made[0].cache.n_entries(), cache.n_entries());
    EXPECT_EQ(made[0].cache.next_position(), cache.next_position());
    EXPECT_LT((scene.logits(cache) - scene.logits(made[0].cache)).abs().max().item<float>(), 1e-4);
  }
}

TEST_P(EveryMethod, CompactsACompactedCache) {
  if (!method_->compacts_cache() || !method_->needs_target()) GTEST_SKIP() << "takes no target";
  if (refuses_compact_caches(GetParam().name)) GTEST_SKIP() << "refuses, as the test above shows";
  const Scene& scene = Scene::of(at::kFloat);
  const KvCache cache = compacted(scene, unequal());
  const KvCache before = cache.clone();
  const HeadBudget smaller{{{30, 1}, {0, 31}}, {}};
  const std::vector<Compaction> made = compact_again(scene, *method_, cache, {every_head(20), smaller});
  EXPECT_TRUE(same_bits(cache, before));
  EXPECT_TRUE(same_bits(made[1].cache, compact_again(scene, *method_, cache, {smaller})[0].cache));
  EXPECT_TRUE(scene.logits(made[0].cache).isfinite().all().item<bool>());
  for (int64_t l = 0; l < kLayers; ++l) {
    for (int64_t h = 0; h < kKvHeads; ++h) {
      const LayerKv &was = cache.layer(l), &is = made[1].cache.layer(l);
      ASSERT_EQ(is.head_len(h), scene.template_len() + smaller.at(l, h));
      if (!only_evicts(GetParam().name) || makes_keys(GetParam())) continue;
      // Every entry is one of the old ones, value and bias included.
      for (int64_t j = 0; j < is.head_len(h); ++j) {
        const at::Tensor same = was.head_keys(h).eq(is.head_keys(h)[j]).all(1).nonzero().flatten();
        ASSERT_EQ(same.size(0), 1);
        const int64_t old = same[0].item<int64_t>();
        EXPECT_TRUE(at::equal(was.head_values(h)[old], is.head_values(h)[j]));
        EXPECT_EQ(was.head_bias(h)[old].item<float>(), is.bias.defined() ? is.head_bias(h)[j].item<float>() : 0.0F);
      }
    }
  }
}

// --- grouped queries

// Two query heads that ask the same are one: the number of query heads plays no part.
TEST_P(EveryMethod, EqualQueryHeadsAreOne) {
  const auto* method = dynamic_cast<const PerHeadMethod*>(method_.get());
  if (method == nullptr) GTEST_SKIP() << "is no method of single heads";
  if (needs_a_model(GetParam())) GTEST_SKIP() << "needs a model, which has one number of query heads";
  const HeadProblem one = random_head(60, 140, 16, 41, true);
  HeadProblem two = one;
  two.queries = at::cat({one.queries, one.queries});
  two.window_queries = [&](int64_t n) { return at::cat({one.window_queries(n), one.window_queries(n)}); };
  const HeadFit a = method->fit(one, {20}).front(), b = method->fit(two, {20}).front();
  EXPECT_TRUE(at::equal(a.indices, b.indices));
  EXPECT_LT((a.keys - b.keys).abs().max().item<float>(), 1e-5);
  EXPECT_LT((a.values - b.values).abs().max().item<float>(), 1e-3);
  EXPECT_EQ(a.bias.defined(), b.bias.defined());
  if (a.bias.defined()) {
    EXPECT_LT((a.bias - b.bias).abs().max().item<float>(), 1e-3);
  }
}

// The order of entries may change, so sums round otherwise, and no more than that.
TEST_P(EveryMethod, KeepingEverythingChangesNoLogits) {
  if (!method_->compacts_cache()) GTEST_SKIP() << "builds a cache of its own";
  if (measures_its_size(GetParam().name)) GTEST_SKIP() << "decides by itself how much it keeps";
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Scene& scene = Scene::of(dtype);
    const std::vector<Compaction> made = scene.compact(*method_, {every_head(scene.source_len())});
    const at::Tensor full = scene.logits(scene.full), kept = scene.logits(made[0].cache);
    if (dtype == at::kFloat) {
      EXPECT_LT((full - kept).abs().max().item<float>(), 1e-4);
    } else {
      EXPECT_LT(mean_kl(full, kept), 1e-3);
    }
  }
}

// Entries have no order: those of every head, template included, are shuffled.
TEST_P(EveryMethod, OrderOfEntriesChangesNoLogits) {
  const Scene& scene = Scene::of(at::kFloat);
  const at::Generator generator = at::detail::createCPUGenerator(9);
  const std::vector<Compaction> made = scene.compact(*method_, {ragged(scene)});
  const KvCache& cache = made.front().cache;
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < kLayers; ++l) {
    std::vector<at::Tensor> keys, values, bias;
    for (int64_t h = 0; h < kKvHeads; ++h) {
      const at::Tensor order = at::randperm(cache.layer(l).head_len(h), generator, at::TensorOptions(at::kLong));
      const at::Tensor head_bias = cache.layer(l).head_bias(h);
      keys.push_back(cache.layer(l).head_keys(h).index_select(0, order));
      values.push_back(cache.layer(l).head_values(h).index_select(0, order));
      bias.push_back(head_bias.defined() ? head_bias.index_select(0, order) : head_bias);
    }
    layers.push_back(pack_heads(keys, values, bias));
  }
  const KvCache shuffled(std::move(layers), cache.next_position());
  EXPECT_FALSE(same_bits(cache, shuffled));
  EXPECT_LT((scene.logits(cache) - scene.logits(shuffled)).abs().max().item<float>(), 1e-4);
}

TEST(Methods, OnlyRandomOnesDependOnTheSeed) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto differs = [&](const std::string& name) {
    const auto method = Registry<CompactionMethod>::instance().create(name, Json::object());
    const std::vector<HeadBudget> budgets = {every_head(30)};
    return !same_bits(scene.compact(*method, budgets, 1)[0].cache, scene.compact(*method, budgets, 2)[0].cache);
  };
  EXPECT_TRUE(differs("random_keys"));
  EXPECT_TRUE(differs("cam"));
  for (const char* name : {"d2o", "expected_attention", "full_cache", "h2o", "key_norm", "keydiff", "kvzip",
                           "no_context", "snapkv", "streaming_llm", "tova", "truncate"}) {
    EXPECT_FALSE(differs(name)) << name;
  }
}

TEST(Methods, RandomKeysDrawsForEachHeadItsOwn) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto method = Registry<CompactionMethod>::instance().create("random_keys", Json::object());
  const std::vector<Compaction> made = scene.compact(*method, {every_head(30)});
  std::set<std::vector<int64_t>> drawn;
  for (int64_t l = 0; l < kLayers; ++l) {
    for (int64_t h = 0; h < kKvHeads; ++h) {
      const at::Tensor kept = made[0].cache.layer(l).head_keys(h).narrow(0, scene.context.prefix_len, 30);
      const at::Tensor which =
          kept.unsqueeze(1).eq(scene.full.layer(l).head_keys(h).unsqueeze(0)).all(-1).to(at::kLong).argmax(1);
      drawn.insert({which.const_data_ptr<int64_t>(), which.const_data_ptr<int64_t>() + 30});
    }
  }
  EXPECT_EQ(drawn.size(), static_cast<size_t>(kLayers * kKvHeads));
}

TEST(Methods, NoContextIsTheTemplateReadAnew) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto method = Registry<CompactionMethod>::instance().create("no_context", Json::object());
  const KvCache cache = std::move(scene.compact(*method, {})[0].cache);
  EXPECT_EQ(cache.next_position(), scene.template_len());
  for (int64_t l = 0; l < kLayers; ++l) {
    for (int64_t h = 0; h < kKvHeads; ++h) EXPECT_EQ(cache.layer(l).head_len(h), scene.template_len());
  }
}

}  // namespace
}  // namespace kvc
