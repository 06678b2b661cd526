// What every registered method must keep, whoever wrote it, on a real context of a small model; and what the checks of
// PerHeadMethod must refuse.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "harness/api/compaction_method.h"
#include "harness/core/error.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

constexpr int64_t kLayers = 2, kKvHeads = 2;

const std::string kArticle =
    "The lake is deep and cold. In winter nobody swims there, but in June the whole village comes. Old Mara says a bell "
    "lies on its ground; 42 divers have looked for it, none found it.";

// A document as the sweep would hold it: model, context with its template, full cache, reference queries.
struct Scene {
  explicit Scene(at::ScalarType dtype)
      : model(tiny_model(11, dtype, 1024)),
        context(make_context(model, kArticle)),
        full(model.decoder().prefill(context.tokens)),
        queries(Registry<QuerySource>::instance().create("repeat_prefill", Json::object())->make({model, context, full, 5})) {}

  static const Scene& of(at::ScalarType dtype) {
    static const Scene exact(at::kFloat), rounded(at::kBFloat16);
    return dtype == at::kFloat ? exact : rounded;
  }

  int64_t source_len() const { return context.article_len(); }
  int64_t template_len() const { return context.prefix_len + context.suffix_len; }

  std::vector<Compaction> compact(const CompactionMethod& method, const std::vector<HeadBudget>& budgets,
                                  std::uint64_t seed = 1) const {
    const Compactable compactable{context.prefix_len, context.suffix_len};
    return method.compact({model, context, full, compactable, queries.get(),
                           method.needs_target() ? budgets : std::vector<HeadBudget>{}, seed});
  }

  // Logits of a question's tokens behind `cache`, (N, vocab).
  at::Tensor logits(const KvCache& cache) const {
    const std::vector<int64_t> tokens = make_question_prompt(model, "What lies on the ground of the lake?");
    Tails tails = Tails::behind(cache, 1, static_cast<int64_t>(tokens.size()));
    return model.decoder().logits(model.decoder().forward(PackedTokens::single(tokens), cache, tails));
  }

  Model model;
  Context context;
  KvCache full;
  std::unique_ptr<LayerQueries> queries;
};

HeadBudget every_head(int64_t target_len) {
  return {std::vector<std::vector<int64_t>>(kLayers, std::vector<int64_t>(kKvHeads, target_len))};
}

// Every head another length; one keeps nothing, one everything.
HeadBudget ragged(const Scene& scene) { return {{{0, 37}, {scene.source_len(), 5}}}; }

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         at::equal(a.contiguous().view(at::kByte), b.contiguous().view(at::kByte));
}

bool same_bits(const KvCache& a, const KvCache& b) {
  bool same = a.n_layers() == b.n_layers() && a.next_position() == b.next_position();
  for (int64_t i = 0; same && i < a.n_layers(); ++i) {
    same = a.layer(i).head_offsets == b.layer(i).head_offsets && same_bits(a.layer(i).keys, b.layer(i).keys) &&
           same_bits(a.layer(i).values, b.layer(i).values) && same_bits(a.layer(i).bias, b.layer(i).bias);
  }
  return same;
}

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

std::vector<Variant> variants() {
  std::vector<Variant> list;
  for (const std::string& name : Registry<CompactionMethod>::instance().names()) list.push_back({name, Json::object()});
  list.push_back({"attention_matching", {{"bias", "none"}}});
  list.push_back({"attention_matching", {{"values", "copy"}}});
  list.push_back({"attention_matching", {{"bias", "none"}, {"values", "copy"}, {"score", "max"}}});
  list.push_back({"attention_matching", {{"score", "mean"}, {"nnls_iters", 0}, {"bias_bound", 0.5}}});
  list.push_back({"h2o", {{"recent_fraction", 0.0}}});
  list.push_back({"h2o", {{"recent_fraction", 1.0}}});
  list.push_back({"snapkv", {{"pool", "avg"}, {"window", 8}}});
  list.push_back({"snapkv", {{"kernel", 1}, {"window", 128}}});
  list.push_back({"streaming_llm", {{"n_sink", 0}}});
  list.push_back({"streaming_llm", {{"n_sink", 1000}}});
  return list;
}

std::string test_name(const ::testing::TestParamInfo<Variant>& info) {
  std::string name = info.param.name + "_" + info.param.options.dump();
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
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
              IsSupersetOf({"attention_matching", "full_cache", "h2o", "no_context", "random_keys", "snapkv", "streaming_llm"}));
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
      for (int64_t h = 0; method_->needs_target() && h < kKvHeads; ++h) {
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
        expect_kept(0, 0, prefix);
        expect_kept(was.head_len(h) - suffix, is.head_len(h) - suffix, suffix);
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
    if (!method_->compacts_cache()) continue;  // a prefill is free to round by its threads
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

// The order of entries may change, so sums round otherwise, and no more than that.
TEST_P(EveryMethod, KeepingEverythingChangesNoLogits) {
  if (!method_->compacts_cache()) GTEST_SKIP() << "builds a cache of its own";
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

// Entries have no order (spec J-10): those of every head, template included, are shuffled.
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
  for (const char* name : {"full_cache", "no_context", "h2o", "snapkv", "streaming_llm"}) EXPECT_FALSE(differs(name)) << name;
}

TEST(Methods, RandomKeysDrawsForEachHeadItsOwn) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto method = Registry<CompactionMethod>::instance().create("random_keys", Json::object());
  const std::vector<Compaction> made = scene.compact(*method, {every_head(30)});
  std::set<std::vector<int64_t>> drawn;
  for (int64_t l = 0; l < kLayers; ++l) {
    for (int64_t h = 0; h < kKvHeads; ++h) {
      const at::Tensor kept = made[0].cache.layer(l).head_keys(h).narrow(0, scene.context.prefix_len, 30);
      const at::Tensor which = kept.unsqueeze(1).eq(scene.full.layer(l).head_keys(h).unsqueeze(0)).all(-1).to(at::kLong).argmax(1);
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

// --- results that PerHeadMethod must refuse

using Spoil = std::function<void(HeadFit& fit, const HeadProblem& problem)>;

// Keeps the first entries, then spoils the result of layer 1, head 0.
class Spoiled final : public PerHeadMethod {
 public:
  explicit Spoiled(Spoil spoil, bool needs_queries = false) : spoil_(std::move(spoil)), needs_queries_(needs_queries) {}
  bool needs_queries() const override { return needs_queries_; }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    return [this, problem](int64_t target_len) {
      HeadFit fit = keep(problem, at::arange(target_len, at::TensorOptions(at::kLong)));
      if (problem.layer == 1 && problem.kv_head == 0) spoil_(fit, problem);
      return fit;
    };
  }

 private:
  Spoil spoil_;
  bool needs_queries_;
};

std::string refusal(const CompactionMethod& method, const std::vector<HeadBudget>& budgets, bool with_queries = true) {
  const Scene& scene = Scene::of(at::kFloat);
  const Compactable compactable{scene.context.prefix_len, scene.context.suffix_len};
  const int n_threads = at::get_num_threads();
  std::string text = "no error";
  try {
    method.compact({scene.model, scene.context, scene.full, compactable, with_queries ? scene.queries.get() : nullptr, budgets, 1});
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInternal);
    text = e.what();
  }
  EXPECT_EQ(at::get_num_threads(), n_threads);
  return text;
}

std::string refusal(const Spoil& spoil) { return refusal(Spoiled(spoil), {every_head(6)}); }

TEST(PerHeadMethod, AcceptsWhatIsNotSpoiled) {
  EXPECT_EQ(refusal([](HeadFit&, const HeadProblem&) {}), "no error");
}

TEST(PerHeadMethod, NamesTheHeadAndTheFault) {
  EXPECT_EQ(refusal([](HeadFit& fit, const HeadProblem&) { fit.indices[3] = 1; }),
            "a fit returned index 1 twice\n  where: layer 1, KV head 0\n  mend:  this is a bug of the method; please report it");
}

TEST(PerHeadMethod, RefusesWrongIndices) {
  const auto with_index = [](int64_t index) {
    return refusal([index](HeadFit& fit, const HeadProblem&) { fit.indices[2] = index; });
  };
  const int64_t source_len = Scene::of(at::kFloat).source_len();
  const std::string entries = std::to_string(source_len) + " entries";
  EXPECT_THAT(with_index(-1), HasSubstr("index -1 of " + entries));
  EXPECT_THAT(with_index(source_len), HasSubstr("index " + std::to_string(source_len) + " of " + entries));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.indices = at::Tensor(); }), HasSubstr("no indices"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.indices = fit.indices.to(at::kInt); }), HasSubstr("int64"));
}

TEST(PerHeadMethod, RefusesAnotherNumberOfEntries) {
  const auto with_count = [](int64_t count) {
    return refusal([count](HeadFit& fit, const HeadProblem& problem) {
      fit.indices = at::arange(count, at::TensorOptions(at::kLong));
      fit.keys = problem.keys.index_select(0, fit.indices);
      fit.values = problem.values.index_select(0, fit.indices);
    });
  };
  EXPECT_THAT(with_count(5), HasSubstr("a fit returned 5 entries for a target of 6"));
  EXPECT_THAT(with_count(7), HasSubstr("a fit returned 7 entries for a target of 6"));
}

TEST(PerHeadMethod, RefusesWrongShapesAndTypes) {
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.keys = fit.keys.narrow(0, 0, 5); }), HasSubstr("another shape"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.values = fit.values.t(); }), HasSubstr("another shape"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.values = at::Tensor(); }), HasSubstr("another shape"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.bias = at::zeros({6, 1}); }), HasSubstr("another shape"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.keys = fit.keys.to(at::kBFloat16); }), HasSubstr("another dtype"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.bias = at::zeros({6}, at::kDouble); }), HasSubstr("another dtype"));
}

TEST(PerHeadMethod, RefusesNumbersThatAreNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(refusal([=](HeadFit& fit, const HeadProblem&) { fit.keys[5][15] = nan; }), HasSubstr("not finite"));
  EXPECT_THAT(refusal([=](HeadFit& fit, const HeadProblem&) { fit.values[0][0] = -infinity; }), HasSubstr("not finite"));
  EXPECT_THAT(refusal([=](HeadFit& fit, const HeadProblem&) { fit.bias = at::full({6}, -infinity); }), HasSubstr("not finite"));
}

TEST(PerHeadMethod, RefusesBudgetsThatDoNotFit) {
  const Spoiled method([](HeadFit&, const HeadProblem&) {});
  const int64_t source_len = Scene::of(at::kFloat).source_len();
  EXPECT_THAT(refusal(method, {every_head(source_len + 1)}),
              HasSubstr(fmt::format("a target of {} entries for {} compactable ones", source_len + 1, source_len)));
  EXPECT_THAT(refusal(method, {every_head(5), {{{1, 1}, {1, -1}}}}), HasSubstr("layer 1, KV head 1"));
  EXPECT_THAT(refusal(method, {{{{1, 1}}}}), HasSubstr("other layers or heads"));
  EXPECT_THAT(refusal(method, {{{{1}, {1}}}}), HasSubstr("other layers or heads"));
}

TEST(PerHeadMethod, RefusesToWorkWithoutTheQueriesItNeeds) {
  EXPECT_THAT(refusal(Spoiled([](HeadFit&, const HeadProblem&) {}, true), {every_head(5)}, false), HasSubstr("was given none"));
}

// An exception inside a worker thread comes out as it is.
TEST(PerHeadMethod, PassesOnWhatAHeadThrows) {
  const Error thrown(ErrorKind::kInternal, "nothing to see", "here", "there");
  EXPECT_EQ(refusal([&](HeadFit&, const HeadProblem&) { throw thrown; }), std::string(thrown.what()));
}

TEST(PerHeadMethod, SumsNotesOverHeadsAndHandsOutTheWallClock) {
  const Scene& scene = Scene::of(at::kFloat);
  class Noted final : public PerHeadMethod {
   public:
    bool needs_queries() const override { return false; }

   protected:
    HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
      return [problem](int64_t target_len) {
        HeadFit fit = keep(problem, at::arange(target_len, at::TensorOptions(at::kLong)));
        fit.notes["kept"] = target_len;
        if (problem.layer == 0) fit.notes["half"] = 0.5;
        return fit;
      };
    }
  };
  const std::vector<Compaction> made = scene.compact(Noted(), {every_head(6), ragged(scene)});
  EXPECT_EQ(made[0].notes, (Json{{"kept", 24}, {"half", 1.0}}));
  // The head that keeps nothing is not asked.
  EXPECT_EQ(made[1].notes, (Json{{"kept", 37 + scene.source_len() + 5}, {"half", 0.5}}));
  for (const Compaction& one : made) {
    EXPECT_GE(one.shared_s, 0.0);
    EXPECT_GT(one.own_s, 0.0);
  }
}

}  // namespace
}  // namespace kvc
