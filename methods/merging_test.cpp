// Methods that merge evicted entries into kept ones: cases whose answer can be seen, float64 loops, laws.
#include "methods/parts/merging.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "harness/testing/method_heads.h"
#include "harness/testing/method_scene.h"
#include "harness/testing/naive_methods_eviction.h"

namespace kvc {
namespace {

at::Tensor indices(const std::vector<int64_t>& list) {
  return at::tensor(list, at::TensorOptions(at::kLong));
}

void expect_rows(const at::Tensor& found, const NaiveRows& judge, double tolerance) {
  ASSERT_EQ(found.size(0), static_cast<int64_t>(judge.size()));
  for (size_t i = 0; i < judge.size(); ++i) {
    for (size_t c = 0; c < judge[i].size(); ++c) {
      EXPECT_NEAR(found[static_cast<int64_t>(i)][static_cast<int64_t>(c)].item<double>(), judge[i][c], tolerance)
          << "row " << i;
    }
  }
}

// The uniform numbers that a head of this seed draws.
std::vector<double> draws(const HeadProblem& head) {
  const at::Tensor drawn =
      at::rand({head.keys.size(0)}, at::detail::createCPUGenerator(head.seed), at::TensorOptions(at::kDouble));
  return {drawn.const_data_ptr<double>(), drawn.const_data_ptr<double>() + drawn.numel()};
}

// --- parts

TEST(Merging, SplitsInOrderOfPosition) {
  const Split split = split_entries(indices({4, 0, 3}), 6);
  EXPECT_TRUE(at::equal(split.kept, indices({0, 3, 4})));
  EXPECT_TRUE(at::equal(split.evicted, indices({1, 2, 5})));
}

TEST(Merging, SortingSplitsAsLookingDoes) {
  for (const int64_t t : {0, 1, 300, 1000}) {
    const at::Tensor kept = at::randperm(1000, at::TensorOptions(at::kLong)).narrow(0, 0, t);
    const Split got = split_entries_by_sorting(kept, 1000), want = split_entries(kept, 1000);
    EXPECT_TRUE(at::equal(got.kept, want.kept));
    EXPECT_TRUE(at::equal(got.evicted, want.evicted));
  }
}

TEST(Merging, SumsGroupsAndRanges) {
  const at::Tensor rows = at::tensor(std::vector<double>{1, 2, 4, 8}).unsqueeze(1);
  const at::Tensor groups = group_sums(rows, indices({2, 0, 2, 3}), 5);
  EXPECT_TRUE(at::equal(groups.flatten(), at::tensor(std::vector<double>{2, 0, 5, 8, 0})));
  const at::Tensor ranges = range_sums(rows, indices({0, 1, 2, 4}), indices({4, 3, 2, 4}));
  EXPECT_TRUE(at::equal(ranges.flatten(), at::tensor(std::vector<double>{15, 6, 0, 0})));
}

// --- CaM

// Attention falls from entry 0 to entry 5, so that every evicted entry has more than those after it.
HeadProblem falling() {
  HeadProblem head = written_head({{5, 0}, {4, 0}, {3, 0}, {2, 0}, {1, 0}, {0, 0}}, {{1, 0}});
  head.values = at::tensor({1.0F, 10.0F, 100.0F, 1000.0F, 0.0F, 0.0F}).unsqueeze(1).expand({6, 2}).contiguous();
  return head;
}

TEST(Cam, ValuesArePassedOnUntilAnEntryStays) {
  const HeadProblem head = falling();
  const Json recent = {{"recent_fraction", 1.0}, {"n_merged", 1}};
  const HeadFit next = NamedMethod("cam", recent).fit(head, 2);
  EXPECT_TRUE(at::equal(next.indices, indices({4, 5})));
  EXPECT_TRUE(at::equal(next.values.select(1, 0), at::tensor({1111.0F, 0.0F})));
  EXPECT_EQ(next.notes.at("merged_entries"), 4);
  const HeadFit both = NamedMethod("cam", {{"recent_fraction", 1.0}, {"n_merged", 2}}).fit(head, 2);
  // 1 is passed on as 0.5 and 0.5, so 10.5 as 5.25 and 5.25, so 105.75 as 52.875 and 52.875, so 1058.125 by halves.
  EXPECT_TRUE(at::equal(both.values.select(1, 0), at::tensor({581.9375F, 529.0625F})));
  EXPECT_TRUE(at::equal(both.keys, head.keys.narrow(0, 4, 2)));
}

TEST(Cam, ValuesWithoutAnEntryBehindThemAreLost) {
  const HeadFit fit = NamedMethod("cam", {{"recent_fraction", 0.0}}).fit(falling(), 2);
  EXPECT_TRUE(at::equal(fit.indices, indices({0, 1})));
  EXPECT_TRUE(at::equal(fit.values.select(1, 0), at::tensor({1.0F, 10.0F})));
  EXPECT_EQ(fit.notes.at("merged_entries"), 3);  // the last one has nobody behind it
}

TEST(Cam, EqualsFloat64Loops) {
  for (const bool old_bias : {false, true}) {
    for (const double recent : {0.0, 0.3, 0.5, 1.0}) {
      for (const int64_t m : {1, 4, 32}) {
        const HeadProblem head = random_head(60, 150, 8, 5, old_bias);
        const NamedMethod cam("cam", {{"recent_fraction", recent}, {"n_merged", m}});
        const std::vector<double> attention = naive_attention_scores(head.queries, head.keys, head.bias, "mean");
        const std::vector<int64_t> kept = naive_heavy_and_recent(attention, 20, recent);
        const NaiveMerge judge = naive_cam(head.keys, head.values, attention, draws(head), kept, m);
        const HeadFit fit = cam.fit(head, 20);
        EXPECT_TRUE(at::equal(fit.indices, indices(kept)));
        expect_rows(fit.keys, judge.keys, 0);
        expect_rows(fit.values, judge.values, 1e-4);
        EXPECT_EQ(fit.notes.at("merged_entries"), judge.n_merged);
        EXPECT_EQ(fit.bias.defined(), old_bias);
        if (old_bias) {
          EXPECT_TRUE(at::equal(fit.bias, head.bias.index_select(0, fit.indices)));
        }
      }
    }
  }
}

// Entry 0 has a quarter of the attention of the kept entry behind it.
TEST(Cam, MergesAsOftenAsTheRatioOfAttentionSays) {
  HeadProblem head = written_head({{std::log(0.25F) * std::sqrt(2.0F), 0}, {0, 0}}, {{1, 0}});
  head.values = at::tensor({1.0F, 0.0F}).unsqueeze(1).expand({2, 2}).contiguous();
  const NamedMethod cam("cam");
  int n_merged = 0;
  for (head.seed = 0; head.seed < 2000; ++head.seed) {
    const float value = cam.fit(head, 1).values[0][0].item<float>();
    ASSERT_TRUE(value == 0.0F || value == 1.0F);
    n_merged += value == 1.0F ? 1 : 0;
  }
  EXPECT_NEAR(n_merged / 2000.0, 0.25, 0.04);  // four standard deviations
}

TEST(Cam, ServesTheQueriesBetterThanEvictionDoes) {
  double with_merging = 0, without = 0;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    HeadProblem head = random_head(200, 400, 16, seed);
    head.values = head.values + 1;  // values with something in common, as those of models have
    const auto error = [&](const HeadFit& fit) {
      // Sums, not means: what the entries add to an output in which others take part too.
      const at::Tensor all = at::mm(head.queries, head.keys.t()).div(4).exp();
      const at::Tensor part = at::mm(head.queries, fit.keys.t()).div(4).exp();
      return (at::mm(all, head.values) - at::mm(part, fit.values)).div(all.sum(1, true)).pow(2).mean().item<double>();
    };
    with_merging += error(NamedMethod("cam").fit(head, 60));
    without += error(NamedMethod("h2o").fit(head, 60));
  }
  EXPECT_LT(with_merging, without);
}

// --- D2O

TEST(D2o, MergesWhatIsSimilarAndLosesTheRest) {
  // The first two have the most attention. Entry 2 is most similar to entry 1, by 0.8, entry 3 to either, by -0.7: the
  // threshold lies between.
  const HeadProblem head = written_head({{1, 0}, {0, 1}, {0.06, 0.08}, {-1, -1}}, {{9, 9}});
  const HeadFit fit = NamedMethod("d2o", {{"recent_fraction", 0.0}}).fit(head, 2);
  ASSERT_TRUE(at::equal(fit.indices, indices({0, 1})));
  const double own = std::exp(1.0), other = std::exp(0.8);
  expect_rows(fit.keys, {{1, 0}, {other * 0.06 / (own + other), (own + other * 0.08) / (own + other)}}, 1e-6);
  expect_rows(fit.values, {{0, 0}, {(own + 2 * other) / (own + other), (own + 2 * other) / (own + other)}}, 1e-6);
  EXPECT_EQ(fit.notes.at("merged_entries"), 1);
}

// Equal keys are similar by 1 and weigh the same: the value of the kept one becomes the mean.
TEST(D2o, DuplicatesBecomeTheirMean) {
  HeadProblem head = written_head({{1, 2}, {1, 2}, {1, 2}, {-3, 1}}, {{1, 1}});
  const HeadFit fit = NamedMethod("d2o", {{"recent_fraction", 0.5}}).fit(head, 2);
  ASSERT_TRUE(at::equal(fit.indices, indices({0, 3})));
  expect_rows(fit.keys, {{1, 2}, {-3, 1}}, 1e-6);
  expect_rows(fit.values, {{1, 1}, {3, 3}}, 1e-6);
}

// An old bias of ln 2 stands for two equal entries.
TEST(D2o, AnOldBiasCountsAsSoManyEntries) {
  const HeadProblem four = written_head({{1, 2}, {1, 2}, {1, 2}, {-3, 1}}, {{1, 1}});
  HeadProblem three = written_head({{1, 2}, {1, 2}, {-3, 1}}, {{1, 1}});
  three.bias = at::tensor({0.0F, std::log(2.0F), 0.0F});
  three.values = at::tensor({0.0F, 1.5F, 3.0F}).unsqueeze(1).expand({3, 2}).contiguous();
  three.queries = three.queries * 0.01;
  three.bias[0] = 1.0F;  // is kept for it, and counts e times
  const HeadFit fit = NamedMethod("d2o", {{"recent_fraction", 0.5}}).fit(three, 2);
  ASSERT_TRUE(at::equal(fit.indices, indices({0, 2})));
  const double value = 1.5 * 2 / (2 + std::exp(1.0));
  expect_rows(fit.values, {{value, value}, {3, 3}}, 1e-6);
  EXPECT_EQ(fit.bias[0].item<float>(), 1.0F);
}

TEST(D2o, HugeBiasesOverflowNothing) {
  HeadProblem head = random_head(30, 60, 8, 3);
  head.bias = normal_numbers({30}, 8) * 300;
  const HeadFit fit = NamedMethod("d2o").fit(head, 10);
  EXPECT_TRUE(fit.keys.isfinite().all().item<bool>());
  EXPECT_TRUE(fit.values.isfinite().all().item<bool>());
}

TEST(D2o, EqualsFloat64Loops) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const bool old_bias : {false, true}) {
      for (const int64_t t : {1, 8, 40, 79}) {
        const HeadProblem head = random_head(80, 150, 8, 5, old_bias, dtype);
        const std::vector<double> attention = naive_attention_scores(head.queries, head.keys, head.bias, "mean");
        const std::vector<int64_t> kept = naive_heavy_and_recent(attention, t, 0.25);
        const NaiveMerge judge = naive_d2o(head.keys, head.values, head.bias, kept);
        const HeadFit fit = NamedMethod("d2o").fit(head, t);
        EXPECT_TRUE(at::equal(fit.indices, indices(kept)));
        const double tolerance = dtype == at::kFloat ? 1e-5 : 0.02;
        expect_rows(fit.keys, judge.keys, tolerance);
        expect_rows(fit.values, judge.values, tolerance);
        EXPECT_EQ(fit.notes.at("merged_entries"), judge.n_merged);
      }
    }
  }
}

// More evicted entries than are compared at a time.
TEST(D2o, BlocksOfEvictedEntriesChangeNothing) {
  const HeadProblem head = random_head(1300, 64, 8, 9);
  const std::vector<double> attention = naive_attention_scores(head.queries, head.keys, head.bias, "mean");
  const NaiveMerge judge = naive_d2o(head.keys, head.values, head.bias, naive_heavy_and_recent(attention, 50, 0.25));
  const HeadFit fit = NamedMethod("d2o").fit(head, 50);
  expect_rows(fit.keys, judge.keys, 1e-4);
  expect_rows(fit.values, judge.values, 1e-4);
}

// --- KVMerger

// Three keys in one direction, two in another, one apart from both; entry 1 has the most attention of the first three.
TEST(KvMerger, NeighboursThatAreAlikeBecomeOne) {
  HeadProblem head = written_head({{2, 0}, {3, 0}, {1, 0}, {0, 2}, {0, 1}, {-1, -1}}, {{1, 1}});
  head.values = at::tensor({1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F}).unsqueeze(1).expand({6, 2}).contiguous();
  const HeadFit fit = NamedMethod("kv_merger", {{"protected_fraction", 0.0}}).fit(head, 3);
  ASSERT_TRUE(at::equal(fit.indices, indices({1, 3, 5})));
  // Distances 1 and 2 from the pivot, their mean 1.5; of a pair the distance is its own mean.
  const double near = std::exp(-1 / 2.25), far = std::exp(-4 / 2.25), one = std::exp(-1.0);
  const double sum = 1 + near + far;
  expect_rows(fit.keys, {{(3 + 2 * near + far) / sum, 0}, {0, (2 + one) / (1 + one)}, {-1, -1}}, 1e-6);
  const double first = (2 + near + 3 * far) / sum, second = (4 + 5 * one) / (1 + one);
  expect_rows(fit.values, {{first, first}, {second, second}, {6, 6}}, 1e-6);
  EXPECT_EQ(fit.notes.at("merged_entries"), 3);
}

TEST(KvMerger, EqualsFloat64Loops) {
  for (const bool old_bias : {false, true}) {
    for (const double apart : {0.0, 0.5, 1.0}) {
      for (const int64_t t : {1, 2, 17, 40, 79}) {
        const HeadProblem head = random_head(80, 150, 8, 5, old_bias);
        const std::vector<double> attention = naive_attention_scores(head.queries, head.keys, head.bias, "mean");
        const auto n_apart = std::min(static_cast<int64_t>(std::floor(apart * static_cast<double>(t))), t - 1);
        const NaiveSets judge =
            naive_kv_merger(head.keys, head.values, head.bias, attention,
                            naive_heavy_and_recent(attention, n_apart, 0.5), static_cast<size_t>(t - n_apart));
        const HeadFit fit = NamedMethod("kv_merger", {{"protected_fraction", apart}}).fit(head, t);
        ASSERT_TRUE(at::equal(fit.indices, indices(judge.kept))) << t;
        expect_rows(fit.keys, judge.keys, 1e-5);
        expect_rows(fit.values, judge.values, 1e-5);
        EXPECT_EQ(fit.notes.at("merged_entries"), judge.n_merged);
      }
    }
  }
}

TEST(KvMerger, HugeBiasesOverflowNothing) {
  HeadProblem head = random_head(30, 60, 8, 3);
  head.bias = normal_numbers({30}, 8) * 300;
  const HeadFit fit = NamedMethod("kv_merger").fit(head, 10);
  EXPECT_TRUE(fit.keys.isfinite().all().item<bool>());
  EXPECT_TRUE(fit.values.isfinite().all().item<bool>());
}

// --- all of them

TEST(Merging, KeepingEverythingMergesNothing) {
  const HeadProblem head = random_head(25, 50, 8, 6, true);
  for (const char* name : {"cam", "d2o", "kv_merger"}) {
    const HeadFit fit = NamedMethod(name).fit(head, 25);
    EXPECT_TRUE(at::equal(fit.indices, at::arange(25))) << name;
    EXPECT_TRUE(at::equal(fit.keys, head.keys)) << name;
    EXPECT_TRUE(at::equal(fit.values, head.values)) << name;
    EXPECT_TRUE(at::equal(fit.bias, head.bias)) << name;
  }
}

// As on a GPU: in blocks shorter and longer than what an entry reaches, the last one not full.
TEST(Merging, ValuesArePassedOnInBlocksAsOneByOne) {
  for (const int64_t source_len : {1, 37, 256, 300}) {
    at::manual_seed(5);
    const at::Tensor values = at::randn({source_len, 6}, at::kDouble);
    at::Tensor gives = at::rand({source_len}).lt(0.8);
    gives[source_len - 1] = false;
    for (const int64_t m : {1, 7, 32, 1000}) {
      const at::Tensor want = pass_values_on(values, gives, m);
      for (const int64_t block : {1, 16, 64, 256}) {
        const at::Tensor got = pass_values_on_in_blocks(values, gives, m, block);
        ASSERT_EQ(got.sizes(), want.sizes());
        EXPECT_LT((got - want).abs().max().item<double>(), 1e-11) << source_len << " " << m << " " << block;
      }
    }
  }
}

}  // namespace
}  // namespace kvc
