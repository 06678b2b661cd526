#include "harness/report/paired.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <random>

#include "harness/core/config_text.h"
#include "harness/report/comparison.h"
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

std::vector<Observation> observations_of(const Json& clusters) {
  std::vector<Observation> list;
  for (size_t g = 0; g < clusters.size(); ++g) {
    for (const Json& value : clusters[g]) list.push_back({document(g), value.get<double>()});
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

std::vector<Observation> split(int wins, int losses, int ties, int n_documents) {
  std::vector<Observation> list;
  for (int i = 0; i < wins + losses + ties; ++i)
    list.push_back({document(static_cast<size_t>(i % n_documents)), i < wins ? 1.0 : i < wins + losses ? -1.0 : 0.0});
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

TEST(Paired, TTestsAndDetectableDifferencesAgreeWithScipyAndStatsmodels) {
  ASSERT_EQ(golden().at("t_tests").size(), 3u);
  for (const Json& row : golden().at("t_tests")) {
    SCOPED_TRACE(row.at("name").get<std::string>());
    const Pair pair = compare_pair(observations_of(row.at("clusters")), false);
    EXPECT_NEAR(*pair.p_documents, row.at("p_documents").get<double>(), 1e-9);
    EXPECT_NEAR(*pair.p_questions, row.at("p_questions").get<double>(), 1e-9);
    EXPECT_EQ(pair.p, *pair.p_documents);
    EXPECT_EQ(pair.wins + pair.losses + pair.ties, row.at("n").get<int64_t>());
    EXPECT_NEAR(*detectable_difference(pair, 0.05, false), row.at("detectable").get<double>(), 1e-9);
    EXPECT_GT(*detectable_difference(pair, 0.001, false), *detectable_difference(pair, 0.05, false));
  }
}

TEST(Paired, WhatDecidesDependsOnTheNumberOfDocuments) {
  // Nine changed answers in one of six documents: McNemar decides, but another document may well not show it.
  std::vector<Observation> one_document = split(0, 0, 60, 6);
  for (int i = 0; i < 9; ++i) one_document[static_cast<size_t>(6 * i)].value = 1;
  const Pair lone = compare_pair(one_document, true);
  EXPECT_LT(*lone.p_mcnemar, 0.01);
  EXPECT_GT(*lone.p_documents, 0.3);
  EXPECT_EQ(lone.p, *lone.p_documents);
  // One changed answer in each of six documents: no spread at all between them, yet only six coins.
  const Pair even = compare_pair(split(6, 0, 0, 6), true);
  EXPECT_EQ(*even.p_documents, 0);
  EXPECT_EQ(even.p, *even.p_mcnemar);
  const Pair few = compare_pair(split(9, 0, 20, 2), true);
  EXPECT_EQ(few.p, *few.p_mcnemar);
  EXPECT_FALSE(few.p_questions.has_value());
  const Pair same = compare_pair(split(0, 0, 12, 6), true);
  EXPECT_EQ(same.p, 1);
  EXPECT_EQ(same.ties, 12);
  EXPECT_EQ(compare_pair({}, true).p, 1);
  EXPECT_EQ(compare_pair({{"d", 0.5}}, false).p, 1);
}

TEST(Paired, NoDifferenceIsSeenThatMcNemarCannotDecide) {
  const Pair same = compare_pair(split(0, 0, 100, 10), true);
  EXPECT_DOUBLE_EQ(*detectable_difference(same, 0.05, true), 0.06);        // 2 / 2^6 = 0.03, 2 / 2^5 = 0.06
  EXPECT_DOUBLE_EQ(*detectable_difference(same, 0.05 / 950, true), 0.16);  // 2^-15 < 5.3e-5 < 2^-14
  EXPECT_FALSE(detectable_difference(compare_pair(split(0, 0, 5, 5), true), 0.05, true).has_value());
}

TEST(Retained, FiellerAgreesWithStatsmodels) {
  ASSERT_EQ(golden().at("fieller").size(), 5u);
  int unbounded = 0;
  for (const Json& row : golden().at("fieller")) {
    SCOPED_TRACE(row.at("name").get<std::string>());
    const Retained retained = retained_of(gains_of(row.at("clusters")));
    EXPECT_NEAR(retained.value, row.at("value").get<double>(), 1e-12);
    ASSERT_TRUE(retained.documents.computed);
    EXPECT_EQ(retained.documents.unbounded, row.at("unbounded").get<bool>());
    unbounded += retained.documents.unbounded;
    if (retained.documents.unbounded) continue;
    EXPECT_NEAR(retained.documents.low, row.at("low").get<double>(), 1e-9);
    EXPECT_NEAR(retained.documents.high, row.at("high").get<double>(), 1e-9);
    EXPECT_LT(retained.documents.low, retained.value);
    EXPECT_GT(retained.documents.high, retained.value);
    EXPECT_LT(std::abs(retained.bootstrap.low - retained.documents.low), 0.2);
    EXPECT_LT(std::abs(retained.bootstrap.high - retained.documents.high), 0.2);
  }
  EXPECT_EQ(unbounded, 1);
}

TEST(Retained, NoSpreadIsNoCertainty) {
  const Retained nothing = retained_of({{"a", 0, 1}, {"a", 0, 0}, {"b", 0, 1}, {"c", 0, 1}});
  EXPECT_EQ(nothing.value, 0);
  EXPECT_FALSE(nothing.documents.computed);
  const Retained all = retained_of({{"a", 1, 1}, {"a", 0, 0}, {"b", 1, 1}, {"c", 0, 0}});
  EXPECT_EQ(all.value, 1);
  EXPECT_FALSE(all.questions.computed);
  EXPECT_FALSE(retained_of({{"a", 1, 1}}).documents.computed);
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

// Under no difference, at most 5 % of pairs may be decided, although the questions of a document change together; a
// difference as large as said to be detectable must be found in about the share of runs that was said.
TEST(Paired, TestsKeepTheirLevelAndDetectWhatTheySay) {
  std::mt19937_64 random(23);
  std::uniform_real_distribution<double> uniform;
  std::normal_distribution<double> normal;
  constexpr int kRepeats = 1500;
  int false_decisions = 0, naive = 0, found = 0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    std::vector<Observation> shares, reals;
    for (size_t g = 0; g < 12; ++g) {
      const double lean = uniform(random);  // of the changed answers of this document, how many favour the first
      const double shift = 0.5 * normal(random);
      for (int i = 0; i < 10; ++i) {
        const double changed = uniform(random) < 0.4 ? 1 : 0;
        shares.push_back({document(g), changed * (uniform(random) < lean ? 1.0 : -1.0)});
        reals.push_back({document(g), shift + normal(random)});
      }
    }
    const Pair pair = compare_pair(shares, true);
    false_decisions += pair.p <= 0.05;
    naive += *pair.p_mcnemar <= 0.05;
    // True standard error of the mean of 120: 12 shifts of 0.5, 120 residuals of 1.
    const double error = std::sqrt(0.25 / 12 + 1.0 / 120);
    const double effect = (student_t_quantile(0.975, 11) + student_t_quantile(0.8, 11)) * error;
    for (Observation& o : reals) o.value += effect;
    found += compare_pair(reals, false).p <= 0.05;
  }
  EXPECT_LT(false_decisions, 0.06 * kRepeats);
  EXPECT_GT(naive, 0.08 * kRepeats);  // what taking questions as independent would have decided
  EXPECT_NEAR(found, 0.8 * kRepeats, 0.03 * kRepeats);
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
