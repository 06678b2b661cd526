#include "harness/report/paired.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iostream>
#include <random>

#include "harness/core/config_text.h"
#include "harness/report/comparison.h"
#include "harness/report/power.h"
#include "harness/report/retained.h"

namespace kvc {
namespace {

const Json& golden() {
  static const Json json = [] {
    std::ifstream file(KVC_SOURCE_DIR "/harness/testing/golden/statistics.json");
    return Json::parse(file);
  }();
  return json;
}

std::string document(size_t index) {
  return "d" + std::to_string(100 + index);
}

// Differences as pairs of a value and 0; shares as two answers.
std::vector<PairedValues> pairs_of(const Json& clusters) {
  std::vector<PairedValues> list;
  for (size_t g = 0; g < clusters.size(); ++g) {
    for (const Json& value : clusters[g]) list.push_back({document(g), value.get<double>(), 0});
  }
  return list;
}

std::vector<RetainedObservation> gains_of(const Json& clusters) {
  std::vector<RetainedObservation> list;
  for (size_t g = 0; g < clusters.size(); ++g) {
    for (const Json& question : clusters[g])
      list.push_back({document(g), question[0].get<double>(), question[1].get<double>()});
  }
  return list;
}

std::vector<PairedValues> split(int wins, int losses, int ties, int n_documents) {
  std::vector<PairedValues> list;
  for (int i = 0; i < wins + losses + ties; ++i) {
    list.push_back({document(static_cast<size_t>(i % n_documents)), i < wins ? 1.0 : 0.0,
                    i >= wins && i < wins + losses ? 1.0 : 0.0});
  }
  return list;
}

TEST(Paired, McNemarAgreesWithScipyAndStatsmodels) {
  ASSERT_GE(golden().at("mcnemar").size(), 14u);
  for (const Json& row : golden().at("mcnemar")) {
    SCOPED_TRACE(row.dump());
    const double p = mcnemar_exact(row[0].get<int64_t>(), row[1].get<int64_t>());
    EXPECT_NEAR(p, row[2].get<double>(), 1e-9 * row[2].get<double>());
    EXPECT_NEAR(p, row[3].get<double>(), 1e-9 * row[3].get<double>());
    EXPECT_EQ(p, mcnemar_exact(row[1].get<int64_t>(), row[0].get<int64_t>()));
  }
  EXPECT_NEAR(mcnemar_exact(0, 6), 2.0 / 64, 1e-15);            // by hand
  EXPECT_NEAR(mcnemar_exact(1, 4), 2.0 * (1 + 5) / 32, 1e-15);  // by hand
  EXPECT_EQ(mcnemar_exact(0, 0), 1);
}

TEST(Paired, HolmAgreesWithStatsmodels) {
  ASSERT_GE(golden().at("holm").size(), 6u);
  for (const Json& row : golden().at("holm")) {
    SCOPED_TRACE(row.dump());
    const std::vector<double> adjusted = holm(row[0].get<std::vector<double>>());
    const auto wanted = row[1].get<std::vector<double>>();
    ASSERT_EQ(adjusted.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(adjusted[i], wanted[i], 1e-14);
  }
  // By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and the last no smaller than the one before.
  const std::vector<double> adjusted = holm({0.01, 0.04, 0.03, 0.005});
  EXPECT_NEAR(adjusted[3], 0.02, 1e-15);
  EXPECT_NEAR(adjusted[0], 0.03, 1e-15);
  EXPECT_NEAR(adjusted[2], 0.06, 1e-15);
  EXPECT_NEAR(adjusted[1], 0.06, 1e-15);
}

TEST(Paired, BenjaminiHochbergAgreesWithStatsmodels) {
  ASSERT_GE(golden().at("benjamini_hochberg").size(), 6u);
  for (const Json& row : golden().at("benjamini_hochberg")) {
    SCOPED_TRACE(row.dump());
    const std::vector<double> adjusted = benjamini_hochberg(row[0].get<std::vector<double>>());
    const auto wanted = row[1].get<std::vector<double>>();
    ASSERT_EQ(adjusted.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(adjusted[i], wanted[i], 1e-14);
  }
}

TEST(Paired, SignFlipsAgreeWithScipyAndWithMcNemar) {
  ASSERT_EQ(golden().at("sign_flip").size(), 3u);
  for (const Json& row : golden().at("sign_flip"))
    EXPECT_NEAR(sign_flip_test(row[0].get<std::vector<double>>()), row[1].get<double>(), 1e-12) << row.dump();
  EXPECT_DOUBLE_EQ(sign_flip_test({1, 1, -1, 1, 1, 0, 0}), mcnemar_exact(4, 1));
  EXPECT_EQ(sign_flip_test({0, 0}), 1);
  // More than kExactFlips: drawn, the same each time.
  const std::vector<double> many(20, 0.1);
  EXPECT_LT(sign_flip_test(many), 0.001);
  std::vector<double> mixed;
  for (int i = 0; i < 30; ++i) mixed.push_back(i % 3 == 0 ? -1 : 1);
  EXPECT_NEAR(sign_flip_test(mixed), mcnemar_exact(20, 10), 0.01);
}

TEST(Paired, TTestsEquivalenceAndDetectableDifferencesAgreeWithScipyAndStatsmodels) {
  ASSERT_EQ(golden().at("t_tests").size(), 3u);
  for (const Json& row : golden().at("t_tests")) {
    SCOPED_TRACE(row.at("name").get<std::string>());
    const Pair pair = compare_pair(pairs_of(row.at("clusters")), MetricScale::kReal);
    EXPECT_NEAR(*pair.p_documents, row.at("p_documents").get<double>(), 1e-9);
    EXPECT_EQ(pair.p, pair.p_documents);
    EXPECT_EQ(pair.test, PairTest::kReal);
    EXPECT_EQ(pair.wins + pair.losses + pair.ties, row.at("n").get<int64_t>());
    EXPECT_NEAR(*equivalence_test(pair, MetricScale::kReal, row.at("margin").get<double>()),
                row.at("p_equivalence").get<double>(), 1e-9);
    EXPECT_NEAR(*detectable_effect(pair, 0.05), row.at("detectable").get<double>(),
                2e-3 * row.at("detectable").get<double>());
    EXPECT_GT(*detectable_effect(pair, 0.001), *detectable_effect(pair, 0.05));
  }
}

TEST(Paired, LogRatiosAgreeWithScipy) {
  ASSERT_EQ(golden().at("log_ratios").size(), 2u);
  for (const Json& row : golden().at("log_ratios")) {
    SCOPED_TRACE(row.at("name").get<std::string>());
    std::vector<PairedValues> values;
    for (size_t g = 0; g < row.at("first").size(); ++g) {
      for (size_t i = 0; i < row.at("first")[g].size(); ++i)
        values.push_back({document(g), row.at("first")[g][i].get<double>(), row.at("second")[g][i].get<double>()});
    }
    const Pair pair = compare_pair(values, MetricScale::kPositive);
    EXPECT_EQ(pair.test, PairTest::kLogRatio);
    EXPECT_NEAR(*pair.p, row.at("p").get<double>(), 1e-9);
    EXPECT_NEAR(*pair.ratio, row.at("ratio").get<double>(), 1e-9);
    EXPECT_NEAR(pair.ratio_interval.low, row.at("low").get<double>(), 1e-9);
    EXPECT_NEAR(pair.ratio_interval.high, row.at("high").get<double>(), 1e-9);
    EXPECT_NEAR(*detectable_effect(pair, 0.05), row.at("detectable").get<double>(),
                3e-3 * row.at("detectable").get<double>());
  }
}

TEST(Power, AgreesWithScipy) {
  for (const Json& row : golden().at("t_power"))
    EXPECT_NEAR(t_power(row[0].get<double>(), row[1].get<double>(), row[2].get<double>()), row[3].get<double>(), 1e-7)
        << row.dump();
  ASSERT_GE(golden().at("mcnemar_power").size(), 4u);
  for (const Json& row : golden().at("mcnemar_power"))
    EXPECT_NEAR(mcnemar_power(row[0].get<int64_t>(), row[1].get<double>(), row[2].get<double>(), row[3].get<double>()),
                row[4].get<double>(), 1e-8)
        << row.dump();
}

TEST(Paired, WhatDecidesDependsOnTheNumberOfDocuments) {
  // Nine changed answers in one of six documents: McNemar decides, but another document may well not show it.
  std::vector<PairedValues> one_document = split(0, 0, 60, 6);
  for (int i = 0; i < 9; ++i) one_document[static_cast<size_t>(6 * i)].first = 1;
  const Pair lone = compare_pair(one_document, MetricScale::kShare);
  EXPECT_LT(*lone.p_mcnemar, 0.01);
  EXPECT_GT(*lone.p_documents, 0.3);
  EXPECT_EQ(lone.p, lone.p_documents);
  // One changed answer in each of six documents: no spread at all between them, yet only six coins.
  const Pair even = compare_pair(split(6, 0, 0, 6), MetricScale::kShare);
  EXPECT_DOUBLE_EQ(*even.p_documents, 1.0 / 32);
  EXPECT_EQ(even.p, even.p_mcnemar);
  const Pair few = compare_pair(split(9, 0, 20, 2), MetricScale::kShare);
  EXPECT_EQ(few.p, few.p_mcnemar);
  EXPECT_EQ(few.test, PairTest::kMcNemar);
  const Pair same = compare_pair(split(0, 0, 12, 6), MetricScale::kShare);
  EXPECT_EQ(same.p, 1);
  EXPECT_EQ(same.ties, 12);
  EXPECT_FALSE(compare_pair({}, MetricScale::kShare).p);
}

TEST(Paired, FewDocumentsDecideNothingByKl) {
  std::vector<PairedValues> values;
  for (size_t i = 0; i < 60; ++i) values.push_back({document(i % 4), 0.1 + 0.001 * static_cast<double>(i), 2});
  const Pair pair = compare_pair(values, MetricScale::kPositive);
  EXPECT_FALSE(pair.p);
  EXPECT_EQ(test_name(pair.test), "too few documents");
  EXPECT_FALSE(equivalence_test(pair, MetricScale::kPositive, 100));
  EXPECT_FALSE(detectable_effect(pair, 0.05));
  for (PairedValues& value : values) value.document += value.first < 0.13 ? "a" : "b";
  EXPECT_LT(*compare_pair(values, MetricScale::kPositive).p, 0.001);
  // A document without any loss has no logarithm: signs of the documents' differences, of which 8 are all negative.
  for (PairedValues& value : values) {
    if (value.document == values.front().document) value.first = 0;
  }
  const Pair zero = compare_pair(values, MetricScale::kPositive);
  EXPECT_EQ(zero.test, PairTest::kSignFlip);
  EXPECT_DOUBLE_EQ(*zero.p, 2.0 / 256);
}

TEST(Paired, RoundOffIsATie) {
  const Pair pair = compare_pair({{"a", 0.1 + 0.2, 0.3}, {"b", 0.3, 0.1 + 0.2}, {"c", 0.7, 0.7}}, MetricScale::kShare);
  EXPECT_EQ(pair.ties, 3);
  EXPECT_EQ(pair.difference.mean, 0);
}

TEST(Paired, EquivalenceOfSharesNeedsEnoughAnswers) {
  // 60 equal answers exclude a loss of 0.05 at 5 % (0.95^60 = 0.046), 58 do not (0.051).
  EXPECT_NEAR(*equivalence_test(compare_pair(split(0, 0, 60, 12), MetricScale::kShare), MetricScale::kShare, 0.05),
              std::pow(0.95, 60), 1e-12);
  EXPECT_GT(*equivalence_test(compare_pair(split(0, 0, 58, 12), MetricScale::kShare), MetricScale::kShare, 0.05), 0.05);
  EXPECT_GT(*equivalence_test(compare_pair(split(30, 2, 30, 12), MetricScale::kShare), MetricScale::kShare, 0.05), 0.9);
  EXPECT_FALSE(equivalence_test(compare_pair(split(0, 0, 60, 12), MetricScale::kShare), MetricScale::kShare, 0));
}

// Outside the margin, equivalence may be claimed in at most 5 % of runs: exactly at the margin, with and without
// answers that change both ways, questions of a document going together or not.
TEST(Paired, EquivalenceKeepsItsLevelAtTheMargin) {
  std::mt19937_64 random(31);
  std::uniform_real_distribution<double> uniform;
  constexpr int kRepeats = 2000;
  constexpr double kMargin = 0.1;
  for (const double both_ways : {0.0, 0.1, 0.3}) {
    for (const bool together : {false, true}) {
      int claimed = 0;
      for (int repeat = 0; repeat < kRepeats; ++repeat) {
        std::vector<PairedValues> values;
        for (size_t g = 0; g < 12; ++g) {
          const double loss = together ? 2 * kMargin * uniform(random) : kMargin;
          for (int i = 0; i < 12; ++i) {
            const double u = uniform(random);
            const double first = u < both_ways / 2 ? 1 : 0;
            const double second = u >= both_ways / 2 && u < both_ways + loss ? 1 : 0;
            values.push_back({document(g), first, second});
          }
        }
        const Pair pair = compare_pair(values, MetricScale::kShare);
        claimed += equivalence_test(pair, MetricScale::kShare, kMargin).value_or(1) <= 0.05;
      }
      EXPECT_LE(claimed, 0.06 * kRepeats) << both_ways << " " << together;
    }
  }
}

TEST(Power, NoDifferenceIsSeenThatMcNemarCannotDecide) {
  const Pair same = compare_pair(split(0, 0, 100, 10), MetricScale::kShare);
  // Six answers must change (2 / 2^6 = 0.03), and 80 % of runs must have so many: P(binomial(100, x) >= 6) = 0.8.
  const double found = *detectable_effect(same, 0.05);
  EXPECT_GE(mcnemar_power(100, found, found, 0.05), 0.8);
  EXPECT_GT(found, 0.07);
  EXPECT_LT(found, 0.11);
  EXPECT_FALSE(detectable_effect(compare_pair(split(0, 0, 5, 5), MetricScale::kShare), 0.05));
}

// What is said to be found in 80 % of runs must be: here the truth is set to what one run said and 1,000 others test
// it.
TEST(Power, WhatIsSaidToBeDetectableIsFoundInAtLeast80Percent) {
  std::mt19937_64 random(29);
  std::uniform_real_distribution<double> uniform;
  struct Case {
    double changed;  // share of answers that change in any case, both ways
    bool together;   // answers of a document change the same way more often than not
  };
  for (const Case& c : {Case{0, false}, Case{0.05, false}, Case{0.4, false}, Case{0.4, true}}) {
    const auto run = [&](double difference) {
      std::vector<PairedValues> values;
      for (size_t g = 0; g < 12; ++g) {
        const double shift = c.together ? 0.25 * (uniform(random) - 0.5) : 0;
        const double changed = std::max(c.changed, difference);
        const double win = std::clamp((changed + difference) / 2 + shift, 0.0, changed);
        for (int i = 0; i < 10; ++i) {
          const double u = uniform(random);
          values.push_back({document(g), u < win ? 1.0 : 0.0, u >= win && u < changed ? 1.0 : 0.0});
        }
      }
      return compare_pair(values, MetricScale::kShare);
    };
    double said = 0;  // on average over runs without a difference
    constexpr int kRuns = 30;
    for (int i = 0; i < kRuns; ++i) said += *detectable_effect(run(0), 0.05) / kRuns;
    constexpr int kRepeats = 1000;
    int found = 0;
    for (int repeat = 0; repeat < kRepeats; ++repeat) found += *run(said).p <= 0.05;
    std::cout << "changed " << c.changed << (c.together ? ", by document" : "") << ": detectable " << said
              << ", found in " << found / static_cast<double>(kRepeats) << "\n";
    EXPECT_GE(found, 0.78 * kRepeats) << c.changed;
    EXPECT_LE(found, 0.97 * kRepeats) << c.changed;
  }
}

TEST(Retained, FiellerAgreesWithStatsmodels) {
  ASSERT_EQ(golden().at("fieller").size(), 5u);
  int unbounded = 0;
  for (const Json& row : golden().at("fieller")) {
    SCOPED_TRACE(row.at("name").get<std::string>());
    const RatioInterval interval = fieller_interval(gains_of(row.at("clusters")));
    ASSERT_TRUE(interval.computed);
    EXPECT_EQ(interval.unbounded, row.at("unbounded").get<bool>());
    unbounded += interval.unbounded;
    if (interval.unbounded) continue;
    const Retained retained = *retained_of(gains_of(row.at("clusters")));
    EXPECT_NEAR(retained.value, row.at("value").get<double>(), 1e-12);
    EXPECT_NEAR(retained.interval.low, row.at("low").get<double>(), 1e-9);
    EXPECT_NEAR(retained.interval.high, row.at("high").get<double>(), 1e-9);
    EXPECT_LT(retained.interval.low, retained.value);
    EXPECT_GT(retained.interval.high, retained.value);
    EXPECT_LT(std::abs(retained.bootstrap.low - retained.interval.low), 0.2);
    EXPECT_LT(std::abs(retained.bootstrap.high - retained.interval.high), 0.2);
  }
  EXPECT_EQ(unbounded, 1);
}

TEST(Retained, NothingIsSaidWhereFullCacheAndFloorCannotBeToldApart) {
  std::vector<RetainedObservation> list;
  for (size_t i = 0; i < 24; ++i)
    list.push_back({document(i / 4), i % 3 == 0 ? 1.0 : 0.0, i % 5 == 0 ? 1.0 : i % 6 == 1 ? -1.0 : 0.0});
  EXPECT_FALSE(retained_of(list));
  for (RetainedObservation& o : list) o.range = -1;
  EXPECT_FALSE(retained_of(list));
  EXPECT_FALSE(retained_of({{"a", 1, 1}}));
}

// As the full cache in every answer, or as no document at all: a value with an interval all the same.
TEST(Retained, NoSpreadIsNoCertainty) {
  std::vector<RetainedObservation> list;
  for (size_t i = 0; i < 24; ++i) list.push_back({document(i / 4), i % 4 == 0 ? 0.0 : 1.0, i % 4 == 0 ? 0.0 : 1.0});
  const auto all = retained_of(list);
  ASSERT_TRUE(all);
  EXPECT_EQ(all->value, 1);
  EXPECT_LT(all->interval.low, 0.9);
  EXPECT_GT(all->interval.high, 1.1);
  for (RetainedObservation& o : list) o.gain = 0;
  const auto nothing = retained_of(list);
  ASSERT_TRUE(nothing);
  EXPECT_EQ(nothing->value, 0);
  EXPECT_GT(nothing->interval.high, 0.1);
}

// A known denominator leaves the t interval of the numerator.
TEST(Retained, AConstantRangeGivesTheIntervalOfAMean) {
  const std::vector<double> gains = {0.2, 0.9, 0.4, 0.5, 0.1, 0.7};
  std::vector<RetainedObservation> list;
  std::vector<Observation> halves;
  for (size_t i = 0; i < gains.size(); ++i) {
    list.push_back({document(i), gains[i], 2});
    halves.push_back({document(i), gains[i] / 2});
  }
  const Interval mean = clustered_interval(halves);
  EXPECT_NEAR(fieller_interval(list).low, mean.low, 1e-12);
  EXPECT_NEAR(fieller_interval(list).high, mean.high, 1e-12);
}

// Method, floor and ceiling share the difficulty of a document; the truth is 0.5. Where full cache and floor are hardly
// apart, percentiles of the bootstrap would be an interval all the same; Fieller's set says that it has no end.
TEST(Retained, FiellerCoversTheTruth) {
  std::mt19937_64 random(11);
  std::uniform_real_distribution<double> uniform;
  const auto answer = [&](double p) { return uniform(random) < p ? 1.0 : 0.0; };
  constexpr int kRepeats = 1500;
  for (const double range : {0.5, 0.1}) {
    int covered = 0, unbounded = 0;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      std::vector<RetainedObservation> list;
      for (size_t g = 0; g < 15; ++g) {
        const double floor = 0.15 + 0.2 * uniform(random);
        for (int i = 0; i < 8; ++i) {
          const double least = answer(floor);
          list.push_back({document(g), answer(floor + range / 2) - least, answer(floor + range) - least});
        }
      }
      const RatioInterval interval = fieller_interval(list);
      unbounded += interval.unbounded;
      covered += interval.unbounded || (interval.low <= 0.5 && 0.5 <= interval.high);
    }
    SCOPED_TRACE(range);
    EXPECT_GT(covered, 0.93 * kRepeats);
    if (range == 0.5) {
      EXPECT_LT(covered, 0.97 * kRepeats);
      EXPECT_EQ(unbounded, 0);
    } else {
      EXPECT_GT(unbounded, 0.3 * kRepeats);
    }
  }
}

// Under no difference, at most 5 % of pairs may be decided, although the questions of a document change together.
TEST(Paired, TestsKeepTheirLevel) {
  std::mt19937_64 random(23);
  std::uniform_real_distribution<double> uniform;
  std::normal_distribution<double> normal;
  constexpr int kRepeats = 1500;
  int shares_decided = 0, naive = 0, kl_decided = 0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    std::vector<PairedValues> shares, kl;
    for (size_t g = 0; g < 12; ++g) {
      const double lean = uniform(random);  // of the changed answers of this document, how many favour the first
      const double level = 0.2 * std::exp(normal(random)), shift = 0.3 * normal(random);
      for (int i = 0; i < 10; ++i) {
        const bool changed = uniform(random) < 0.4, win = uniform(random) < lean;
        shares.push_back({document(g), changed && win ? 1.0 : 0.0, changed && !win ? 1.0 : 0.0});
        kl.push_back({document(g), level * std::exp(shift + 0.7 * normal(random)),
                      level * std::exp(-shift + 0.7 * normal(random))});
      }
    }
    const Pair pair = compare_pair(shares, MetricScale::kShare);
    shares_decided += *pair.p <= 0.05;
    naive += *pair.p_mcnemar <= 0.05;
    kl_decided += *compare_pair(kl, MetricScale::kPositive).p <= 0.05;
  }
  EXPECT_LT(shares_decided, 0.06 * kRepeats);
  EXPECT_GT(naive, 0.08 * kRepeats);  // what taking questions as independent would have decided
  EXPECT_NEAR(kl_decided, 0.05 * kRepeats, 0.018 * kRepeats);
}

TEST(Area, AgreesWithScipy) {
  ASSERT_EQ(golden().at("areas").size(), 3u);
  for (const Json& row : golden().at("areas")) {
    SCOPED_TRACE(row.dump());
    const std::vector<double> weights = area_weights(row[0].get<std::vector<double>>());
    double area = 0, total = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      area += weights[i] * row[1][i].get<double>();
      total += weights[i];
    }
    EXPECT_NEAR(area, row[2].get<double>(), 1e-13);
    EXPECT_NEAR(total, 1, 1e-13);
  }
}

TEST(Area, ByHand) {
  // Two steps of equal length on the log axis: ends count a quarter, the middle one half.
  const std::vector<double> weights = area_weights({0.01, 0.1, 1});
  ASSERT_EQ(weights.size(), 3u);
  EXPECT_NEAR(weights[0], 0.25, 1e-15);
  EXPECT_NEAR(weights[1], 0.5, 1e-15);
  EXPECT_NEAR(weights[2], 0.25, 1e-15);
  EXPECT_TRUE(area_weights({0.1}).empty());
  EXPECT_TRUE(area_weights({0.1, 0.1}).empty());
  EXPECT_TRUE(area_weights({0, 0.1}).empty());
  EXPECT_TRUE(area_weights({}).empty());
}

}  // namespace
}  // namespace kvc
