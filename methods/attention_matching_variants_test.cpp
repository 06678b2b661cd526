// What holds for every setting of Attention Matching, and for the paper's presets.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "harness/api/compaction_method.h"
#include "harness/math/attention.h"
#include "harness/testing/naive_methods.h"
#include "methods/parts/fit.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

at::Tensor normal(std::vector<int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

HeadProblem clustered_head(int64_t T, int64_t n, int64_t d, std::uint64_t seed, bool bias) {
  const at::Tensor centres = normal({6, d}, seed) * 1.5;
  const auto near = [&](int64_t rows, std::uint64_t own) {
    return centres.index_select(0, at::arange(rows, at::kLong) * 7 % 6) + normal({rows, d}, own) * 0.7;
  };
  HeadProblem problem;
  problem.keys = near(T, seed + 1);
  problem.values = normal({T, d}, seed + 2);
  problem.queries = near(n, seed + 3);
  if (bias) problem.bias = normal({T}, seed + 4) * 0.5;
  problem.seed = seed;
  return problem;
}

std::vector<HeadFit> fit(const HeadProblem& head, const std::vector<int64_t>& targets, const Json& options,
                         const std::string& name = "attention_matching") {
  const std::unique_ptr<CompactionMethod> method = Registry<CompactionMethod>::instance().create(name, options);
  return dynamic_cast<const PerHeadMethod&>(*method).fit(head, targets);
}

void expect_same_bits(const HeadFit& a, const HeadFit& b, const std::string& what) {
  EXPECT_TRUE(at::equal(a.indices, b.indices)) << what;
  EXPECT_TRUE(at::equal(a.keys, b.keys)) << what;
  EXPECT_TRUE(at::equal(a.values, b.values)) << what;
  ASSERT_EQ(a.bias.defined(), b.bias.defined()) << what;
  if (a.bias.defined()) {
    EXPECT_TRUE(at::equal(a.bias, b.bias)) << what;
  }
}

std::vector<Json> variants() {
  std::vector<Json> all;
  for (const char* select : {"highest_attention", "omp"}) {
    for (const char* bias : {"nnls", "active_set", "none"}) {
      for (const char* values : {"least_squares", "ridge", "copy"}) {
        all.push_back({{"select", select}, {"bias", bias}, {"values", values}});
      }
    }
  }
  all.push_back({{"score", "max"}, {"pooling", "max"}});
  all.push_back({{"score", "mean"}, {"pooling", "avg"}});
  all.push_back({{"values", "ridge"}, {"ridge_scale", "frobenius"}});
  all.push_back({{"values", "ridge"}, {"ridge_scale", "fixed"}});
  all.push_back({{"select", "omp"}, {"schedule", "progressive"}});
  all.push_back({{"select", "omp"}, {"k_choice", 4}, {"nnls_interval", 2}, {"drop_below", -0.5}});
  return all;
}

// Softmax weights of kept entries and outputs to be met, float64.
struct System {
  at::Tensor weights, output;
  System(const HeadProblem& head, const at::Tensor& keys, const at::Tensor& bias) {
    const auto wide = [](const at::Tensor& x) { return x.to(at::kDouble); };
    const double scale = 1 / std::sqrt(static_cast<double>(head.keys.size(1)));
    at::Tensor full = at::mm(wide(head.queries), wide(head.keys).t()) * scale;
    if (head.bias.defined()) full = full + wide(head.bias);
    output = at::mm(at::softmax(full, 1), wide(head.values));
    at::Tensor kept = at::mm(wide(head.queries), wide(keys).t()) * scale;
    if (bias.defined()) kept = kept + wide(bias);
    weights = at::softmax(kept, 1);
  }
  at::Tensor residual(const at::Tensor& values) const { return at::mm(weights, values.to(at::kDouble)) - output; }
};

// Norm of the error of the attention mass in units of exp(m).
double mass_residual(const HeadProblem& head, const HeadFit& fit) {
  const at::Tensor full = attention_logits(head.queries, head.keys, head.bias).to(at::kDouble);
  const at::Tensor largest = full.amax(1, /*keepdim=*/true);
  const at::Tensor kept = attention_logits(head.queries, fit.keys, fit.bias).to(at::kDouble);
  return ((full - largest).exp().sum(1) - (kept - largest).exp().sum(1)).norm().item<double>();
}

TEST(MatchingVariants, KeepWhatTheyPromise) {
  constexpr double kBound = 2.0;
  for (const bool old_bias : {false, true}) {
    const HeadProblem head = clustered_head(120, 260, 16, 1, old_bias);
    for (Json options : variants()) {
      options["bias_bound"] = kBound;
      const std::string what = options.dump();
      const std::vector<HeadFit> nested = fit(head, {40, 12, 1}, options);
      const std::vector<int64_t> targets = {40, 12, 1};
      for (size_t i = 0; i < targets.size(); ++i) {
        const HeadFit& one = nested[i];
        expect_same_bits(one, fit(head, {targets[i]}, options)[0], what);
        const auto* index = one.indices.const_data_ptr<int64_t>();
        EXPECT_EQ(std::set<int64_t>(index, index + one.indices.numel()).size(), static_cast<size_t>(targets[i]));
        EXPECT_TRUE(at::equal(one.keys, head.keys.index_select(0, one.indices))) << what;
        EXPECT_TRUE(one.values.isfinite().all().item<bool>()) << what;
        if (options.value("bias", "nnls") == "none") {
          EXPECT_EQ(one.bias.defined(), old_bias);
          continue;
        }
        at::Tensor fitted = one.bias;
        if (old_bias) fitted = fitted - head.bias.index_select(0, one.indices);
        EXPECT_LE(fitted.abs().max().item<double>(), kBound + 1e-4) << what;
      }
    }
  }
}

// Everything kept is kept as it is.
TEST(MatchingVariants, KeepingEverythingChangesNothing) {
  const HeadProblem head = clustered_head(40, 100, 16, 2, true);
  for (const Json& options : variants()) {
    const HeadFit whole = fit(head, {40}, options)[0];
    EXPECT_TRUE(at::equal(whole.values, head.values));
    EXPECT_TRUE(at::equal(whole.bias, head.bias));
    HeadProblem again = head;
    const HeadFit first = fit(head, {15}, options)[0];
    again.keys = first.keys;
    again.values = first.values;
    again.bias = first.bias;
    const HeadFit second = fit(again, {15}, options)[0];
    EXPECT_TRUE(at::equal(second.values, first.values)) << options.dump();
    EXPECT_TRUE(at::equal(second.bias, first.bias)) << options.dump();
  }
}

// The pursuit finds one key of each group, its weight is the group's size.
TEST(MatchingVariants, PursuitFindsDuplicates) {
  const at::Tensor distinct = normal({5, 16}, 3);
  std::vector<int64_t> group;
  for (int64_t j = 0; j < 5; ++j) group.insert(group.end(), static_cast<size_t>(j + 2), j);
  const at::Tensor member = at::tensor(group, at::kLong);
  HeadProblem head;
  head.keys = distinct.index_select(0, member);
  head.values = normal({member.numel(), 16}, 4);
  head.queries = normal({200, 16}, 5) * 2;
  for (const char* name : {"am_omp", "attention_matching"}) {
    const Json options = std::string(name) == "am_omp" ? Json::object() : Json{{"select", "omp"}};
    const HeadFit found = fit(head, {5}, options, name)[0];
    for (int64_t i = 0; i < 5; ++i) {
      const int64_t of = group[static_cast<size_t>(found.indices[i].item<int64_t>())];
      EXPECT_NEAR(found.bias[i].item<double>(), std::log(static_cast<double>(of + 2)), 1e-4);
      const at::Tensor mean = head.values.index_select(0, member.eq(of).nonzero().squeeze(1)).mean(0);
      EXPECT_LT((found.values[i] - mean).abs().max().item<float>(), 1e-3);
    }
  }
}

// The converged solver never does worse than the paper's, and more steps never harm.
TEST(MatchingVariants, BiasObjectivesAreOrdered) {
  for (const std::uint64_t seed : {6, 7, 8}) {
    const HeadProblem head = clustered_head(100, 240, 16, seed, seed == 7);
    const auto residual = [&](Json options) {
      options["bias_bound"] = 1.0;
      return mass_residual(head, fit(head, {25}, options)[0]);
    };
    const double best = residual({{"bias", "active_set"}});
    double before = 1e300;
    for (const int64_t steps : {0, 2, 100}) {
      const double now = residual({{"nnls_iters", steps}});
      EXPECT_LE(now, before * (1 + 1e-5)) << steps;
      EXPECT_LE(best, now * (1 + 1e-5)) << steps;
      before = now;
    }
    EXPECT_LT(best, residual({{"bias", "none"}}));
  }
}

// Least squares leaves nothing that the weights could explain; a ridge leaves more and is shorter.
TEST(MatchingVariants, ValueFitsMeetTheirConditions) {
  const HeadProblem head = clustered_head(100, 240, 16, 9, true);
  const HeadFit plain = fit(head, {20}, {})[0];
  const System system(head, plain.keys, plain.bias);
  const at::Tensor residual = system.residual(plain.values);
  EXPECT_LT(at::mm(system.weights.t(), residual).abs().max().item<double>(), 1e-4);
  double before = residual.norm().item<double>(), norm = plain.values.norm().item<double>();
  for (const double lambda : {1e-4, 1e-2, 1.0}) {
    const HeadFit ridge = fit(head, {20}, {{"values", "ridge"}, {"ridge", lambda}})[0];
    ASSERT_TRUE(at::equal(ridge.bias, plain.bias));
    const double now = system.residual(ridge.values).norm().item<double>();
    EXPECT_GE(now, before * (1 - 1e-6)) << lambda;
    EXPECT_LT(ridge.values.norm().item<double>(), norm) << lambda;
    before = now;
    norm = ridge.values.norm().item<double>();
  }
  // Fewer queries than kept keys: every query is answered exactly.
  const HeadProblem few = clustered_head(100, 12, 16, 10, false);
  const HeadFit exact = fit(few, {30}, {})[0];
  EXPECT_LT(System(few, exact.keys, exact.bias).residual(exact.values).abs().max().item<double>(), 1e-3);
}

// Values fitted to the bias as it is stored make up for its rounding.
TEST(MatchingVariants, ABiasRoundedBeforeTheValueFitCostsNoMore) {
  const HeadProblem head = clustered_head(100, 300, 16, 11, false);
  const AttentionSummary attention =
      summarize_attention(head.queries, head.keys, head.bias, KeyScore::kRms, head.values);
  const OrderedFit fitted(head, attention, best_keys(attention.scores, 20), {});
  const HeadFit exact = fitted.fit(20);
  const at::Tensor rounded = exact.bias.to(at::kBFloat16).to(at::kFloat);
  const HeadFit before = fitted.fit(20, rounded);
  const System system(head, exact.keys, rounded);
  EXPECT_LE(system.residual(before.values).norm().item<double>(),
            system.residual(exact.values).norm().item<double>() * (1 + 1e-6));
}

TEST(MatchingVariants, ScoresAreWhatHighestAttentionRanksBy) {
  const HeadProblem head = clustered_head(90, 200, 16, 12, true);
  const NaiveAttention judge = naive_attention(head.queries, head.keys, head.values, head.bias);
  const at::Tensor logits = attention_logits(head.queries, head.keys, head.bias).to(at::kDouble);
  const at::Tensor log_mass = at::tensor(judge.log_mass, at::kDouble).unsqueeze(1);
  const at::Tensor rms = (logits - log_mass).exp().square().mean(0).sqrt();
  const auto pooled = [&](int64_t j, const std::string& how) {
    double sum = 0, largest = 0;
    for (int64_t k = std::max<int64_t>(0, j - 3); k <= std::min<int64_t>(89, j + 3); ++k) {
      sum += rms[k].item<double>() / 7;
      largest = std::max(largest, rms[k].item<double>());
    }
    return how == "avg" ? sum : how == "max" ? largest : rms[j].item<double>();
  };
  for (const std::string how : {"none", "avg", "max"}) {
    const Json options = {{"pooling", how}};
    const auto method = Registry<CompactionMethod>::instance().create("attention_matching", options);
    const at::Tensor scores = dynamic_cast<const PerHeadMethod&>(*method).scores(head);
    for (int64_t j = 0; j < 90; ++j) EXPECT_NEAR(scores[j].item<double>(), pooled(j, how), 1e-6) << how;
    EXPECT_TRUE(at::equal(fit(head, {20}, options)[0].indices, best_keys(scores, 20))) << how;
  }
}

TEST(MatchingPresets, AreAttentionMatchingWithTheirOptions) {
  const HeadProblem head = clustered_head(120, 260, 16, 13, true);
  const Json omp = {{"select", "omp"}, {"bias_bound", 7.0}, {"nnls_iters", 0}};
  Json fast = omp;
  fast["k_choice"] = 4;
  fast["nnls_interval"] = 2;
  const std::vector<std::pair<std::string, Json>> presets = {{"am_highest_attention", Json::object()},
                                                             {"am_highest_attention_fast", Json::object()},
                                                             {"am_omp", omp},
                                                             {"am_omp_fast", fast}};
  for (const auto& [name, options] : presets) {
    expect_same_bits(fit(head, {25}, Json::object(), name)[0], fit(head, {25}, options)[0], name);
    Json other = options;
    other["values"] = "copy";
    other["bias_bound"] = 0.5;
    expect_same_bits(fit(head, {25}, {{"values", "copy"}, {"bias_bound", 0.5}}, name)[0], fit(head, {25}, other)[0],
                     name + " with options of its own");
  }
  EXPECT_FALSE(at::equal(fit(head, {25}, Json::object(), "am_omp")[0].indices,
                         fit(head, {25}, Json::object(), "am_omp_fast")[0].indices));
}

}  // namespace
}  // namespace kvc
