// Methods that fit many heads at once, as they do on a GPU, against the fit of each head alone.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "harness/api/pack_compaction.h"
#include "harness/testing/method_heads.h"
#include "methods/parts/batched_scores.h"
#include "methods/parts/head_batches.h"

namespace kvc {
namespace {

// Of rows: the largest distance as a part of the largest number.
double distance(const at::Tensor& got, const at::Tensor& want) {
  if (want.numel() == 0) return 0;
  const at::Tensor exact = want.to(at::kDouble);
  return ((got.to(at::kDouble) - exact).abs().max() / (1e-6 + exact.abs().max())).item<double>();
}

void expect_same(const HeadFit& got, const HeadFit& want, double most, const std::string& what) {
  ASSERT_TRUE(at::equal(got.indices, want.indices)) << what;
  EXPECT_TRUE(at::equal(got.keys, want.keys)) << what;
  ASSERT_EQ(got.bias.defined(), want.bias.defined()) << what;
  if (want.bias.defined()) {
    EXPECT_LT(distance(got.bias, want.bias), most) << what;
  }
  EXPECT_EQ(got.values.scalar_type(), want.values.scalar_type()) << what;
  EXPECT_LT(distance(got.values, want.values), most) << what;
  EXPECT_EQ(got.notes, want.notes) << what;
}

std::vector<HeadProblem> heads(at::ScalarType dtype, bool bias) {
  std::vector<HeadProblem> list;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) list.push_back(random_head(70, 90, 16, 10 * seed, bias, dtype));
  list.push_back(random_head(50, 90, 16, 77, bias, dtype));  // other shapes: batches of their own
  list.push_back(random_head(70, 30, 16, 78, bias, dtype));  // fewer queries than some targets
  return list;
}

const std::vector<std::vector<int64_t>> kTargets = {{20, 5}, {33, 8}, {0, 0}, {70, 12}, {34, 1}, {25, 50}, {60, 10}};

class Together : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(
    HeadsTogether, Together,
    testing::Values(R"({"method": "am_highest_attention"})", R"({"method": "attention_matching", "values": "copy"})",
                    R"({"method": "attention_matching", "bias": "none"})",
                    R"({"method": "attention_matching", "score": "max", "pooling": "avg", "pooling_kernel": 3})",
                    R"({"method": "am_omp"})", R"({"method": "am_omp", "bias": "none", "drop_below": -1.0})",
                    R"({"method": "am_omp_fast"})", R"({"method": "am_omp", "values": "copy"})",
                    R"({"method": "attention_matching", "bias": "active_set"})",
                    R"({"method": "attention_matching", "values": "ridge"})"),
    [](const auto& test) { return "Case" + std::to_string(test.index); });

TEST_P(Together, FitsAreThoseOfEachHeadAlone) {
  Json options = Json::parse(GetParam());
  const std::string name = options["method"];
  options.erase("method");
  const NamedMethod method(name, options);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const bool bias : {false, true}) {
      const std::vector<HeadProblem> problems = heads(dtype, bias);
      const c10::InferenceMode inference;
      const std::vector<HeadResult> got = method->fit_heads(problems, kTargets);
      ASSERT_EQ(got.size(), problems.size());
      for (size_t i = 0; i < problems.size(); ++i) {
        const std::vector<HeadFit> want = method->fit(problems[i], kTargets[i]);
        ASSERT_EQ(got[i].fits.size(), want.size());
        for (size_t k = 0; k < want.size(); ++k) {
          const std::string what = GetParam() + " head " + std::to_string(i) + " target " + std::to_string(k);
          // With nearly as many picks as queries a fit magnifies the last bits of the row sums.
          const bool few_queries = problems[i].queries.size(0) < 90;
          const double most = dtype == at::kBFloat16 ? 2e-2 : few_queries ? 5e-3 : 2e-4;
          expect_same(got[i].fits[k], want[k], most, what);
        }
      }
    }
  }
}

// Two equal requests give equal bytes.
TEST_P(Together, FitsRepeatBitByBit) {
  Json options = Json::parse(GetParam());
  const std::string name = options["method"];
  options.erase("method");
  const NamedMethod method(name, options);
  const std::vector<HeadProblem> problems = heads(at::kBFloat16, true);
  const c10::InferenceMode inference;
  const std::vector<HeadResult> one = method->fit_heads(problems, kTargets);
  const std::vector<HeadResult> two = method->fit_heads(problems, kTargets);
  for (size_t i = 0; i < problems.size(); ++i) {
    EXPECT_TRUE(at::equal(one[i].fits[0].indices, two[i].fits[0].indices));
    EXPECT_TRUE(at::equal(one[i].fits[0].values, two[i].fits[0].values));
  }
}

// What an adaptive budget has asked for is taken as it is, not computed again.
TEST(HeadsTogether, KnownScoresAreTaken) {
  const c10::InferenceMode inference;
  for (const char* select : {"highest_attention", "omp"}) {
    const NamedMethod method("attention_matching", {{"select", select}});
    std::vector<HeadProblem> problems = heads(at::kFloat, true);
    const std::vector<HeadResult> want = method->fit_heads(problems, kTargets);
    for (HeadProblem& problem : problems) problem.scores = method->scores(problem);
    const std::vector<HeadResult> got = method->fit_heads(problems, kTargets);
    for (size_t i = 0; i < problems.size(); ++i) {
      for (size_t k = 0; k < 2; ++k) expect_same(got[i].fits[k], want[i].fits[k], 1e-6, select);
    }
  }
  const NamedMethod method("am_highest_attention");
  std::vector<HeadProblem> problems = {random_head(70, 90, 16, 3)};
  problems[0].scores = at::arange(70, at::kFloat);
  EXPECT_TRUE(
      at::equal(method->fit_heads(problems, {{4}})[0].fits[0].indices, at::tensor({69, 68, 67, 66}, at::kLong)));
}

TEST(HeadsTogether, BatchesHaveOneShapeAndLargeTargetsFirst) {
  const std::vector<HeadProblem> problems = heads(at::kFloat, false);
  const std::vector<int64_t> targets = {20, 33, 0, 70, 34, 50, 60};
  const auto target_bytes = [](const HeadProblem&, int64_t target) { return target; };
  const std::vector<std::vector<size_t>> all = head_batches(problems, targets, target_bytes, 1000);
  EXPECT_EQ(all, (std::vector<std::vector<size_t>>{{3, 4, 1, 0, 2}, {5}, {6}}));
  // A head is never too large; smaller ones fill a batch up.
  const std::vector<std::vector<size_t>> small = head_batches(problems, targets, target_bytes, 69);
  EXPECT_EQ(small, (std::vector<std::vector<size_t>>{{3}, {4, 1}, {0, 2}, {5}, {6}}));
}

// Of queries that see all, and of queries with a reach of their own in each head.
TEST(ScoresTogether, AreThoseOfEachHeadAlone) {
  const c10::InferenceMode inference;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const bool bias : {false, true}) {
      const std::vector<HeadProblem> problems = heads(dtype, bias);
      for (const KeyScore score : {KeyScore::kRms, KeyScore::kMax, KeyScore::kMean}) {
        for (int kinds = 0; kinds < 3; ++kinds) {  // none, visible entries, all; the last head always has none
          std::vector<RowReach> reaches(problems.size());
          for (size_t i = 0; i + 1 < problems.size() && kinds > 0; ++i) {
            const int64_t n = problems[i].queries.size(0);
            reaches[i].n_visible = at::randint(0, problems[i].keys.size(0) + 1, {n}, at::kLong);
            if (kinds == 2) reaches[i].elsewhere = at::randn({n});
            if (kinds == 2) reaches[i].weight = at::rand({n});
          }
          const std::vector<at::Tensor> got = scores_together(problems, score, reaches);
          ASSERT_EQ(got.size(), problems.size());
          for (size_t i = 0; i < problems.size(); ++i) {
            const HeadProblem& p = problems[i];
            const at::Tensor want = summarize_attention(p.queries, p.keys, p.bias, score, {}, reaches[i]).scores;
            EXPECT_LT(distance(got[i], want), 1e-4) << "head " << i << ", kinds " << kinds;
          }
        }
      }
    }
  }
}

// Scores of a layer's heads, by attention, by another method, and by keys and values alone.
TEST(HeadsTogether, ScoresAreThoseOfEachHeadAlone) {
  const c10::InferenceMode inference;
  for (const char* name : {"h2o", "kvzip", "key_norm", "keydiff", "lagkv", "curdkv"}) {
    const NamedMethod method(name, std::string(name) == "lagkv" ? Json{{"lag_size", 16}} : Json::object());
    for (const size_t n_heads : {size_t{5}, size_t{7}}) {  // of one shape; of several
      std::vector<HeadProblem> problems = heads(at::kBFloat16, true);
      problems.resize(n_heads);
      const std::vector<at::Tensor> got = method->score_heads(problems);
      ASSERT_EQ(got.size(), n_heads);
      for (size_t i = 0; i < n_heads; ++i) {
        const at::Tensor want = method->scores(problems[i]);
        ASSERT_EQ(got[i].sizes(), want.sizes());
        const at::Tensor finite = want.isfinite();
        EXPECT_TRUE(at::equal(got[i].isfinite(), finite)) << name;
        EXPECT_LT(distance(got[i].masked_select(finite), want.masked_select(finite)), 1e-5) << name << i;
      }
    }
  }
}

}  // namespace
}  // namespace kvc
