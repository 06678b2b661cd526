// Attention Matching against float64 loops, against stored results, and against the laws that follow from its
// definition.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "harness/api/compaction_method.h"
#include "harness/math/attention.h"
#include "harness/testing/method_heads.h"
#include "harness/testing/naive_methods.h"
#include "methods/parts/fit.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

AttentionSummary attend(const HeadProblem& head) {
  return summarize_attention(head.queries, head.keys, head.bias, KeyScore::kRms, head.values);
}

// Calls what every method shares, for one head without a model.
class Heads final : public PerHeadMethod {
 public:
  explicit Heads(FitSettings settings) : settings_(settings) {}
  std::string published_queries() const override { return "repeat_prefill"; }
  HeadFit one(const HeadProblem& problem, int64_t target_len, int64_t largest) const {
    return prepare(problem, largest)(target_len);
  }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t largest) const override {
    const AttentionSummary attention = attend(problem);
    const OrderedFit fitted(problem, attention, best_keys(attention.scores, largest), settings_);
    return [fitted](int64_t target_len) { return fitted.fit(target_len); };
  }

 private:
  FitSettings settings_;
};

constexpr FitSettings kClampedFit{.nnls_iterations = 0};
constexpr FitSettings kUnbounded{.bias_bound = 30.0, .nnls_iterations = 0};

HeadFit fit_head(const HeadProblem& problem, int64_t target_len, const FitSettings& settings = {}) {
  return Heads(settings).one(problem, target_len, target_len);
}

double output_error(const HeadProblem& problem, const HeadFit& fit, const at::Tensor& queries) {
  const NaiveAttention full = naive_attention(queries, problem.keys, problem.values, problem.bias);
  const NaiveAttention compact = naive_attention(queries, fit.keys, fit.values, fit.bias);
  double worst = 0;
  for (size_t i = 0; i < full.output.size(); ++i) {
    for (size_t c = 0; c < full.output[i].size(); ++c) {
      worst = std::max(worst, std::abs(full.output[i][c] - compact.output[i][c]));
    }
  }
  return worst;
}

double mass_error(const HeadProblem& problem, const HeadFit& fit, const at::Tensor& queries) {
  const NaiveAttention full = naive_attention(queries, problem.keys, problem.values, problem.bias);
  const NaiveAttention compact = naive_attention(queries, fit.keys, fit.values, fit.bias);
  double worst = 0;
  for (size_t i = 0; i < full.log_mass.size(); ++i) {
    worst = std::max(worst, std::abs(std::exp(compact.log_mass[i] - full.log_mass[i]) - 1));
  }
  return worst;
}

void expect_like_judge(const HeadFit& fit, const NaiveMatching& judge, bool bias) {
  ASSERT_EQ(fit.indices.size(0), static_cast<int64_t>(judge.indices.size()));
  double norm = 0, difference = 0;
  for (size_t j = 0; j < judge.indices.size(); ++j) {
    const auto row = static_cast<int64_t>(j);
    EXPECT_EQ(fit.indices[row].item<int64_t>(), judge.indices[j]);
    if (bias) {
      EXPECT_NEAR(fit.bias[row].item<double>(), judge.bias[j], 1e-3);
    }
    for (size_t c = 0; c < judge.values[j].size(); ++c) {
      const double found = fit.values[row][static_cast<int64_t>(c)].item<double>();
      difference += std::pow(found - judge.values[j][c], 2);
      norm += std::pow(judge.values[j][c], 2);
    }
  }
  EXPECT_LT(std::sqrt(difference / norm), 1e-3);
}

TEST(AttentionMatching, EqualsFloat64Loops) {
  for (const bool old_bias : {false, true}) {
    for (const int64_t t : {1, 7, 20}) {
      const HeadProblem head = random_head(80, 160, 16, 3, old_bias);
      const NaiveMatching judge = naive_attention_matching(head.queries, head.keys, head.values, head.bias, t, {});
      expect_like_judge(fit_head(head, t, kClampedFit), judge, true);
    }
  }
}

TEST(AttentionMatching, EqualsFloat64LoopsWithoutBiasOrValueFit) {
  const HeadProblem head = random_head(80, 160, 16, 5, true);
  const auto judge = [&](bool bias, bool values) {
    return naive_attention_matching(head.queries, head.keys, head.values, head.bias, 12, {bias, values, 3.0});
  };
  expect_like_judge(fit_head(head, 12, {.bias = BiasFit::kNone}), judge(false, true), true);
  expect_like_judge(fit_head(head, 12, {.values = ValueFit::kCopy, .nnls_iterations = 0}), judge(true, false), true);
}

// --- stored results of another implementation

HeadProblem stored_head(const Json& c) {
  if (c.contains("captured")) return captured_head(c.at("captured").get<std::string>());
  HeadProblem head;
  const auto T = c.at("T").get<int64_t>(), n = c.at("n").get<int64_t>(), d = c.at("d").get<int64_t>();
  const auto seed = c.at("seed").get<std::uint64_t>();
  head.queries = synthetic({n, d}, seed) * 2;
  head.keys = synthetic({T, d}, seed + 1);
  head.values = synthetic({T, d}, seed + 2);
  if (c.at("old_bias").get<bool>()) head.bias = synthetic({T}, seed + 3);
  return head;
}

TEST(AttentionMatching, EqualsStoredResults) {
  std::ifstream file(KVC_SOURCE_DIR "/harness/testing/golden/attention_matching.json");
  ASSERT_TRUE(file) << "harness/testing/golden/attention_matching.json is missing";
  const Json golden = Json::parse(file);
  ASSERT_EQ(golden.at("cases").size(), 10U);
  for (const Json& c : golden.at("cases")) {
    SCOPED_TRACE(c.value("captured", "T " + c.at("T").dump()) + ", t " + c.at("t").dump());
    const HeadProblem head = stored_head(c);
    const HeadFit fit = fit_head(head, c.at("t").get<int64_t>(), kClampedFit);
    const std::vector<int64_t> found(fit.indices.const_data_ptr<int64_t>(),
                                     fit.indices.const_data_ptr<int64_t>() + fit.indices.numel());
    EXPECT_EQ(found, c.at("indices").get<std::vector<int64_t>>());
    const auto bias = c.at("bias").get<std::vector<double>>();
    const auto norms = c.at("values_row_norms").get<std::vector<double>>();
    for (size_t j = 0; j < bias.size(); ++j) {
      EXPECT_NEAR(fit.bias[static_cast<int64_t>(j)].item<double>(), bias[j], 1e-3 * std::max(1.0, std::abs(bias[j])));
      EXPECT_NEAR(fit.values[static_cast<int64_t>(j)].norm().item<double>(), norms[j], 1e-3 * norms[j]);
    }
    const auto rows = c.at("values_first_rows").get<std::vector<std::vector<double>>>();
    for (size_t j = 0; j < rows.size(); ++j) {
      for (size_t k = 0; k < rows[j].size(); ++k) {
        EXPECT_NEAR(fit.values[static_cast<int64_t>(j)][static_cast<int64_t>(k)].item<double>(), rows[j][k],
                    1e-3 * norms[j]);
      }
    }
  }
}

// --- laws

TEST(AttentionMatching, FittingEveryEntryChangesNothing) {
  const HeadProblem head = random_head(40, 400, 16, 7);
  const HeadFit fit = fit_head(head, 40);
  EXPECT_LT(fit.bias.abs().max().item<float>(), 1e-4);
  EXPECT_LT((fit.values - head.values.index_select(0, fit.indices)).abs().max().item<float>(), 1e-3);
  EXPECT_LT(output_error(head, fit, normal_numbers({50, 16}, 99)), 1e-4);
}

TEST(AttentionMatching, FittingEveryEntryOfABiasedHeadKeepsTheOldBias) {
  const HeadProblem head = random_head(40, 400, 16, 8, true);
  const HeadFit fit = fit_head(head, 40);
  EXPECT_LT((fit.bias - head.bias.index_select(0, fit.indices)).abs().max().item<float>(), 1e-4);
  EXPECT_LT(mass_error(head, fit, normal_numbers({50, 16}, 99)), 1e-4);
}

// Distinct keys of multiplicities c_j: the distinct ones with bias ln c_j and the group's mean value serve every query
// exactly.
TEST(AttentionMatching, DuplicatesGiveTheLogarithmOfTheirNumber) {
  constexpr int64_t kDistinct = 6;
  const at::Tensor distinct = normal_numbers({kDistinct, 16}, 1);
  std::vector<int64_t> group;
  for (int64_t j = 0; j < kDistinct; ++j) group.insert(group.end(), static_cast<size_t>(j + 1), j);
  const at::Tensor member = at::tensor(group, at::TensorOptions(at::kLong));
  HeadProblem head;
  head.keys = distinct.index_select(0, member);
  head.values = normal_numbers({member.numel(), 16}, 2);
  head.queries = normal_numbers({200, 16}, 3) * 2;
  // One of each group, as a selection could have made it.
  const at::Tensor order = at::tensor(std::vector<int64_t>{0, 1, 3, 6, 10, 15}, at::TensorOptions(at::kLong));
  const HeadFit fit = OrderedFit(head, attend(head), order, {}).fit(kDistinct);
  for (int64_t j = 0; j < kDistinct; ++j) {
    EXPECT_NEAR(fit.bias[j].item<double>(), std::log(static_cast<double>(j + 1)), 1e-4);
    const at::Tensor mean = head.values.index_select(0, (member == j).nonzero().squeeze(1)).mean(0);
    EXPECT_LT((fit.values[j] - mean).abs().max().item<float>(), 1e-3);
  }
  EXPECT_LT(output_error(head, fit, normal_numbers({50, 16}, 77)), 1e-4);
  EXPECT_LT(mass_error(head, fit, normal_numbers({50, 16}, 77)), 1e-4);
}

TEST(AttentionMatching, ZeroQueriesGiveTheMinimumNormSolution) {
  HeadProblem head = random_head(30, 50, 8, 4);
  head.queries = at::zeros({50, 8});
  const HeadFit fit = fit_head(head, 10);
  EXPECT_LT((fit.bias - std::log(3.0)).abs().max().item<float>(), 1e-5);
  EXPECT_LT((fit.values - head.values.mean(0)).abs().max().item<float>(), 1e-5);
  EXPECT_EQ(fit.notes.at("bias_rank_deficient"), 1);
  EXPECT_EQ(fit.notes.at("value_rank_deficient"), 1);
}

TEST(AttentionMatching, WithoutBiasMassIsLostAndTheFitBringsItBack) {
  const HeadProblem head = random_head(60, 300, 16, 6);
  const HeadFit bare = fit_head(head, 10, {.bias = BiasFit::kNone});
  const NaiveAttention full = naive_attention(head.queries, head.keys, head.values, head.bias);
  const NaiveAttention kept = naive_attention(head.queries, bare.keys, bare.values, bare.bias);
  for (size_t i = 0; i < full.log_mass.size(); ++i) EXPECT_LE(kept.log_mass[i], full.log_mass[i] + 1e-9);
  EXPECT_LT(mass_error(head, fit_head(head, 40, kUnbounded), head.queries), mass_error(head, bare, head.queries));
}

TEST(AttentionMatching, ValueFitIsLinearInTheValues) {
  HeadProblem head = random_head(60, 300, 16, 6);
  const at::Tensor values = fit_head(head, 10).values;
  head.values = head.values * 4;
  EXPECT_LT((fit_head(head, 10).values - values * 4).abs().max().item<float>(), 1e-3);
  head.values = head.values / 4 + 2;  // rows of X sum to 1, so a constant passes through
  const HeadFit shifted = fit_head(head, 10);
  EXPECT_LT((shifted.values - (values + 2)).abs().max().item<float>(), 1e-3);
}

// T -> t -> t must reproduce the first result: the old bias is added back.
TEST(AttentionMatching, CompactingASecondTimeToTheSameSizeChangesNothing) {
  const HeadProblem head = random_head(60, 400, 16, 9);
  const HeadFit first = fit_head(head, 15);
  HeadProblem again = head;
  again.keys = first.keys;
  again.values = first.values;
  again.bias = first.bias;
  const HeadFit second = fit_head(again, 15);
  EXPECT_LT((second.bias - first.bias.index_select(0, second.indices)).abs().max().item<float>(), 1e-4);
  EXPECT_LT((second.values - first.values.index_select(0, second.indices)).abs().max().item<float>(), 1e-2);
  EXPECT_LT(output_error(again, second, normal_numbers({50, 16}, 3)), 1e-3);
}

TEST(AttentionMatching, NestedTargetsEqualSeparateOnes) {
  const HeadProblem head = random_head(90, 300, 16, 12, true);
  for (const int64_t t : {1, 10, 33}) {
    const HeadFit nested = Heads({}).one(head, t, 60);
    const HeadFit separate = fit_head(head, t);
    EXPECT_TRUE(at::equal(nested.indices, separate.indices));
    EXPECT_TRUE(at::equal(nested.bias, separate.bias));
    EXPECT_TRUE(at::equal(nested.values, separate.values));
  }
}

TEST(AttentionMatching, BiasStaysWithinItsBounds) {
  const HeadProblem head = random_head(100, 120, 16, 13);
  const HeadFit fit = fit_head(head, 50, {.bias_bound = 0.5});
  EXPECT_LE(fit.bias.abs().max().item<float>(), 0.5001F);
  EXPECT_GT(fit.notes.at("bias_at_bound").get<int64_t>(), 0);
}

// A fit to hardly more queries than it has unknowns is exact on them and far off on others of the same kind; the note
// counts such heads.
TEST(AttentionMatching, HeadsWithFewQueriesAreCounted) {
  const std::string note = "heads_with_few_queries";
  const HeadProblem head = random_head(120, 600, 8, 15);
  const at::Tensor others = normal_numbers({200, 8}, 99) * 2;
  const auto fit_to = [&](int64_t n_queries, const Json& options) {
    HeadProblem some = head;
    some.queries = head.queries.narrow(0, 0, n_queries);
    return NamedMethod("attention_matching", options).fit(some, 40);
  };
  const HeadFit few = fit_to(42, Json::object()), enough = fit_to(600, Json::object());
  EXPECT_EQ(few.notes.at(note), 1);
  EXPECT_FALSE(enough.notes.contains(note));
  EXPECT_GT(output_error(head, few, others), 2 * output_error(head, enough, others));
  EXPECT_FALSE(fit_to(80, Json::object()).notes.contains(note));  // two for each
  EXPECT_TRUE(fit_to(79, Json::object()).notes.contains(note));
  EXPECT_TRUE(fit_to(79, {{"select", "omp"}}).notes.contains(note));
  EXPECT_FALSE(fit_to(42, {{"bias", "none"}, {"values", "copy"}}).notes.contains(note));  // nothing is fitted
}

// A row that attends to nothing that is kept: logits 200 apart would underflow under the shift of the full row.
TEST(AttentionMatching, SurvivesQueriesThatSeeNothingKept) {
  HeadProblem head = random_head(20, 40, 4, 14);
  head.keys[3] = at::tensor({400.0F, 0.0F, 0.0F, 0.0F});
  head.queries.select(1, 0).abs_();
  const at::Tensor order = at::tensor(std::vector<int64_t>{0, 1, 2}, at::TensorOptions(at::kLong));
  const HeadFit fit = OrderedFit(head, attend(head), order, {}).fit(3);
  EXPECT_TRUE(fit.values.isfinite().all().item<bool>());
  EXPECT_TRUE(fit.bias.isfinite().all().item<bool>());
}

// More queries than one block of them; weights by float64 loops.
TEST(KeySelection, ScoresOutputAndMassEqualFloat64Loops) {
  const HeadProblem head = random_head(50, 600, 8, 21, true);
  const NaiveAttention judge = naive_attention(head.queries, head.keys, head.values, head.bias);
  const at::Tensor logits = attention_logits(head.queries, head.keys, head.bias).to(at::kDouble);
  std::vector<double> rms(50, 0), largest(50, 0), mean(50, 0);
  for (int64_t i = 0; i < 600; ++i) {
    for (int64_t j = 0; j < 50; ++j) {
      const double weight = std::exp(logits[i][j].item<double>() - judge.log_mass[static_cast<size_t>(i)]);
      const auto at = static_cast<size_t>(j);
      rms[at] += weight * weight / 600;
      largest[at] = std::max(largest[at], weight);
      mean[at] += weight / 600;
    }
  }
  const auto scores = [&](KeyScore kind) {
    return summarize_attention(head.queries, head.keys, head.bias, kind).scores;
  };
  const at::Tensor found_rms = scores(KeyScore::kRms), found_max = scores(KeyScore::kMax),
                   found_mean = scores(KeyScore::kMean);
  for (size_t j = 0; j < 50; ++j) {
    const auto at = static_cast<int64_t>(j);
    EXPECT_NEAR(found_rms[at].item<double>(), std::sqrt(rms[j]), 1e-6);
    EXPECT_NEAR(found_max[at].item<double>(), largest[j], 1e-6);
    EXPECT_NEAR(found_mean[at].item<double>(), mean[j], 1e-6);
  }
  const AttentionSummary summary = attend(head);
  const at::Tensor log_mass = summary.row_sum.log() + summary.row_max;
  for (size_t i = 0; i < 600; ++i) {
    const auto row = static_cast<int64_t>(i);
    EXPECT_NEAR(log_mass[row][0].item<double>(), judge.log_mass[i], 1e-5);
    for (size_t c = 0; c < 8; ++c) {
      EXPECT_NEAR(summary.output[row][static_cast<int64_t>(c)].item<double>(), judge.output[i][c], 1e-5);
    }
  }
}

TEST(KeySelection, BestFirstAndTheLowerIndexAmongEquals) {
  EXPECT_TRUE(at::equal(best_keys(at::tensor({1.0F, 3.0F, 3.0F, 2.0F}), 3),
                        at::tensor(std::vector<int64_t>{1, 2, 3}, at::TensorOptions(at::kLong))));
}

}  // namespace
}  // namespace kvc
