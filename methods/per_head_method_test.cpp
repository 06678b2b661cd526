// What PerHeadMethod does for every head, and which results of a method it must refuse.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness/api/pack_compaction.h"
#include "harness/core/error.h"
#include "harness/testing/checks.h"
#include "harness/testing/method_scene.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

using Spoil = std::function<void(HeadFit& fit, const HeadProblem& problem)>;

// Keeps the first entries, then spoils the result of layer 1, head 0.
class Spoiled final : public PerHeadMethod {
 public:
  explicit Spoiled(Spoil spoil, bool needs_queries = false) : spoil_(std::move(spoil)), needs_queries_(needs_queries) {}
  std::string published_queries() const override { return needs_queries_ ? "repeat_prefill" : ""; }

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
    method.compact({scene.model, scene.context, scene.full, compactable, with_queries ? scene.queries.get() : nullptr,
                    budgets, 1});
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInternal);
    text = e.what();
  }
  EXPECT_EQ(at::get_num_threads(), n_threads);
  return text;
}

std::string refusal(const Spoil& spoil) {
  return refusal(Spoiled(spoil), {every_head(6)});
}

TEST(PerHeadMethod, AcceptsWhatIsNotSpoiled) {
  EXPECT_EQ(refusal([](HeadFit&, const HeadProblem&) {}), "no error");
}

TEST(PerHeadMethod, NamesTheHeadAndTheFault) {
  EXPECT_EQ(refusal([](HeadFit& fit, const HeadProblem&) { fit.indices[3] = 1; }),
            "a fit returned index 1 twice\n  where: layer 1, KV head 0\n  mend:  this is a bug of the method; please "
            "report it");
}

TEST(PerHeadMethod, RefusesWrongIndices) {
  const auto with_index = [](int64_t index) {
    return refusal([index](HeadFit& fit, const HeadProblem&) { fit.indices[2] = index; });
  };
  const int64_t source_len = Scene::of(at::kFloat).source_len();
  const std::string entries = std::to_string(source_len) + " entries";
  EXPECT_THAT(with_index(-1), HasSubstr("index -1 of " + entries));
  EXPECT_THAT(with_index(source_len), HasSubstr("index " + std::to_string(source_len) + " of " + entries));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.indices = at::Tensor(); }),
              HasSubstr("the indices of a fit must be a list of int64"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.indices = fit.indices.to(at::kInt); }),
              HasSubstr("int64"));
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
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.keys = fit.keys.narrow(0, 0, 5); }),
              HasSubstr("must have the shape of its indices"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.values = fit.values.t(); }),
              HasSubstr("must have the shape of its indices"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.values = at::Tensor(); }),
              HasSubstr("must have the shape of its indices"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) {
                fit.bias = at::zeros({6, 1});
              }),
              HasSubstr("must have the shape of its indices"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.keys = fit.keys.to(at::kBFloat16); }),
              HasSubstr("must have the cache's dtype"));
  EXPECT_THAT(refusal([](HeadFit& fit, const HeadProblem&) { fit.bias = at::zeros({6}, at::kDouble); }),
              HasSubstr("must have the cache's dtype"));
}

TEST(PerHeadMethod, RefusesNumbersThatAreNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(refusal([=](HeadFit& fit, const HeadProblem&) { fit.keys[5][15] = nan; }), HasSubstr("not finite"));
  EXPECT_THAT(refusal([=](HeadFit& fit, const HeadProblem&) { fit.values[0][0] = -infinity; }),
              HasSubstr("not finite"));
  EXPECT_THAT(refusal([=](HeadFit& fit, const HeadProblem&) { fit.bias = at::full({6}, -infinity); }),
              HasSubstr("not finite"));
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
  EXPECT_THAT(refusal(Spoiled([](HeadFit&, const HeadProblem&) {}, true), {every_head(5)}, false),
              HasSubstr("needs queries got none"));
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

// --- heads fitted together, as on a GPU

// Attention Matching's way of a GPU, taken on the CPU; layer 1, head 0 spoiled.
class Gathered final : public PerHeadMethod {
 public:
  explicit Gathered(const std::string& name, Spoil spoil = {})
      : inner_(Registry<CompactionMethod>::instance().create(name, Json::object())), spoil_(std::move(spoil)) {}
  std::string published_queries() const override { return "repeat_prefill"; }
  bool fits_heads_together(const at::Device&) const override { return true; }
  std::vector<HeadResult> fit_heads(const std::vector<HeadProblem>& problems,
                                    const std::vector<std::vector<int64_t>>& targets) const override {
    std::vector<HeadResult> results = dynamic_cast<const PerHeadMethod&>(*inner_).fit_heads(problems, targets);
    for (size_t i = 0; i < problems.size() && spoil_; ++i) {
      if (problems[i].layer == 1 && problems[i].kv_head == 0) spoil_(results[i].fits.front(), problems[i]);
    }
    return results;
  }
  const CompactionMethod& inner() const { return *inner_; }

 protected:
  HeadFitter prepare(const HeadProblem&, int64_t) const override {
    throw Error(ErrorKind::kInternal, "a head was asked for alone", "", "");
  }

 private:
  std::unique_ptr<CompactionMethod> inner_;
  Spoil spoil_;
};

TEST(PerHeadMethod, HeadsFittedTogetherMakeTheSameCaches) {
  const Scene& scene = Scene::of(at::kFloat);
  for (const char* name : {"am_highest_attention", "am_omp"}) {
    const Gathered gathered(name);
    const std::vector<HeadBudget> budgets = {every_head(6), ragged(scene), every_head(scene.source_len())};
    const std::vector<Compaction> got = scene.compact(gathered, budgets),
                                  want = scene.compact(gathered.inner(), budgets);
    ASSERT_EQ(got.size(), want.size());
    for (size_t b = 0; b < want.size(); ++b) {
      EXPECT_EQ(got[b].notes, want[b].notes) << name;
      for (int64_t layer = 0; layer < kLayers; ++layer) {
        const LayerKv &made = got[b].cache.layer(layer), &other = want[b].cache.layer(layer);
        EXPECT_EQ(made.head_offsets, other.head_offsets);
        EXPECT_TRUE(at::equal(made.keys, other.keys)) << name << " " << b;
        EXPECT_LT((made.values - other.values).abs().max().item<float>(), 1e-2) << name << " " << b;
        ASSERT_EQ(made.bias.defined(), other.bias.defined());
        if (made.bias.defined()) {
          EXPECT_LT((made.bias - other.bias).abs().max().item<float>(), 1e-2);
        }
      }
      EXPECT_GT(got[b].own_s, 0.0);
    }
  }
}

TEST(PerHeadMethod, FaultsOfHeadsFittedTogetherAreNamed) {
  const Gathered spoiled("am_highest_attention", [](HeadFit& fit, const HeadProblem&) { fit.values[2][0] = INFINITY; });
  EXPECT_THAT(refusal(spoiled, {every_head(6)}), HasSubstr("layer 1, KV head 0"));
}

// --- budgets that heads share by score

HeadBudget shared_by_score(int64_t target_len, AdaptiveShare share) {
  HeadBudget budget = every_head(target_len);
  budget.adaptive = share;
  return budget;
}

// Which entries of a head are in the compact cache, true or false for each.
std::vector<bool> is_kept(const Scene& scene, const KvCache& cache, int64_t layer, int64_t kv_head) {
  const at::Tensor all =
      scene.full.layer(layer).head_keys(kv_head).narrow(0, scene.context.prefix_len, scene.source_len());
  const int64_t n = cache.layer(layer).head_len(kv_head) - scene.template_len();
  const at::Tensor kept = cache.layer(layer).head_keys(kv_head).narrow(0, scene.context.prefix_len, n);
  std::vector<bool> list;
  for (int64_t j = 0; j < scene.source_len(); ++j) {
    list.push_back(kept.eq(all[j]).all(1).any().item<bool>());
  }
  return list;
}

// The best entries of all heads of `layers` stay, whichever heads they belong to.
void expect_best_of(const Scene& scene, const KvCache& cache, const std::vector<int64_t>& layers) {
  const auto method = Registry<CompactionMethod>::instance().create("kvzip", {{"softmax_over", "article"}});
  float worst_kept = 2, best_lost = -1;
  for (const int64_t layer : layers) {
    for (int64_t h = 0; h < kKvHeads; ++h) {
      HeadProblem head;
      head.keys = scene.full.layer(layer).head_keys(h).narrow(0, scene.context.prefix_len, scene.source_len());
      head.queries = scene.queries->layer(layer, nullptr).select(0, h);
      const at::Tensor scores = dynamic_cast<const PerHeadMethod&>(*method).scores(head);
      const std::vector<bool> kept = is_kept(scene, cache, layer, h);
      for (size_t j = 0; j < kept.size(); ++j) {
        const auto score = scores[static_cast<int64_t>(j)].item<float>();
        if (kept[j]) worst_kept = std::min(worst_kept, score);
        if (!kept[j]) best_lost = std::max(best_lost, score);
      }
    }
  }
  EXPECT_GE(worst_kept, best_lost);
}

TEST(PerHeadMethod, KvzipsOwnBudgetKeepsTheBestOfTheWholeCache) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto method = Registry<CompactionMethod>::instance().create("kvzip", {{"softmax_over", "article"}});
  const std::vector<Compaction> made = scene.compact(*method, {shared_by_score(25, {AdaptiveShare::Scope::kAll, 0.0})});
  const KvCache& cache = made[0].cache;
  EXPECT_EQ(cache.n_entries(), kLayers * kKvHeads * (scene.template_len() + 25));
  EXPECT_NE(cache.layer(0).head_len(0), cache.layer(1).head_len(0));
  expect_best_of(scene, cache, {0, 1});
}

TEST(PerHeadMethod, AdaKvSharesALayersBudgetAmongItsHeads) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto method = Registry<CompactionMethod>::instance().create("kvzip", {{"softmax_over", "article"}});
  using Scope = AdaptiveShare::Scope;
  const std::vector<Compaction> made =
      scene.compact(*method, {shared_by_score(25, {Scope::kLayer, 0.0}), shared_by_score(25, {Scope::kLayer, 0.8}),
                              shared_by_score(25, {Scope::kLayer, 1.0}), every_head(25)});
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    for (const Compaction& one : made) {
      EXPECT_EQ(one.cache.layer(layer).n_entries(), kKvHeads * (scene.template_len() + 25));
    }
    expect_best_of(scene, made[0].cache, {layer});
    for (int64_t h = 0; h < kKvHeads; ++h) EXPECT_GE(made[1].cache.layer(layer).head_len(h), scene.template_len() + 20);
  }
  EXPECT_TRUE(same_bits(made[2].cache, made[3].cache));
}

TEST(PerHeadMethod, MethodsWithoutScoresRefuseToShareByThem) {
  const Scene& scene = Scene::of(at::kFloat);
  for (const char* name : {"random_keys", "streaming_llm", "truncate"}) {
    const auto method = Registry<CompactionMethod>::instance().create(name, Json::object());
    EXPECT_THAT(error_of(ErrorKind::kUsage, [&] { scene.compact(*method, {shared_by_score(25, {})}); }),
                HasSubstr("has no scores"));
  }
}

}  // namespace
}  // namespace kvc
