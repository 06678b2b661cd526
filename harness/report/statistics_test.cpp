#include "harness/report/statistics.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iostream>
#include <random>

#include "harness/core/config_text.h"

namespace kvc {
namespace {

const Json& golden() {
  static const Json json = [] {
    std::ifstream file(KVC_SOURCE_DIR "/harness/testing/golden/intervals.json");
    return Json::parse(file);
  }();
  return json;
}

std::vector<Observation> observations_of(const Json& clusters) {
  std::vector<Observation> list;
  for (size_t g = 0; g < clusters.size(); ++g) {
    for (const Json& value : clusters[g])
      list.push_back({std::string(1, static_cast<char>('A' + g)), value.get<double>()});
  }
  return list;
}

void expect_close(double got, double wanted, double tolerance) {
  EXPECT_NEAR(got, wanted, tolerance * std::max(1.0, std::abs(wanted)));
}

TEST(Statistics, StudentsTAgreesWithScipy) {
  ASSERT_GT(golden().at("t_cdf").size(), 40u);
  for (const Json& row : golden().at("t_cdf")) {
    SCOPED_TRACE(row.dump());
    EXPECT_NEAR(student_t_cdf(row[0].get<double>(), row[1].get<double>()), row[2].get<double>(),
                5e-11);  // scipy's own error at t = -1e-6
  }
  for (const Json& row : golden().at("t_quantile")) {
    SCOPED_TRACE(row.dump());
    expect_close(student_t_quantile(row[0].get<double>(), row[1].get<double>()), row[2].get<double>(), 1e-10);
  }
}

TEST(Statistics, WilsonAgreesWithStatsmodels) {
  for (const Json& row : golden().at("wilson")) {
    SCOPED_TRACE(row.dump());
    const Interval interval = wilson_interval(row[0].get<double>(), row[1].get<int64_t>());
    EXPECT_NEAR(interval.low, row[2].get<double>(), 1e-12);
    EXPECT_NEAR(interval.high, row[3].get<double>(), 1e-12);
  }
}

TEST(Statistics, ClusteredIntervalAgreesWithStatsmodels) {
  ASSERT_EQ(golden().at("clustered").size(), 5u);
  for (const Json& row : golden().at("clustered")) {
    SCOPED_TRACE(row.at("name").get<std::string>());
    const auto observations = observations_of(row.at("clusters"));
    const bool share = row.at("share").get<bool>();
    const Interval t = clustered_interval(observations);
    EXPECT_EQ(t.kind, IntervalKind::kDocuments);
    EXPECT_EQ(t.degrees, static_cast<int64_t>(row.at("clusters").size()) - 1);
    expect_close(t.standard_error, row.at("standard_error").get<double>(), 1e-10);
    expect_close(t.low, row.at("low").get<double>(), 1e-10);
    expect_close(t.high, row.at("high").get<double>(), 1e-10);
    const Estimate result = estimate(observations, share ? MetricScale::kShare : MetricScale::kPositive);
    expect_close(result.mean, row.at("mean").get<double>(), 1e-12);
    expect_close(result.mean_of_documents, row.at("mean_of_documents").get<double>(), 1e-12);
    const Json& shown = row.at(share ? "wilson" : "log");  // of statsmodels' clustered standard error
    const bool few = row.at("clusters").size() < 5;
    const Interval& interval = few ? result.questions : result.interval;
    expect_close(interval.low, shown[0].get<double>(), 1e-9);
    expect_close(interval.high, shown[1].get<double>(), 1e-9);
    EXPECT_EQ(result.interval.by_document(), !few);
    EXPECT_EQ(result.document_means.empty(), !few);
  }
}

TEST(Statistics, BootstrapDrawsAsWrittenAndTendsToAllResamples) {
  for (const Json& row : golden().at("clustered")) {
    SCOPED_TRACE(row.at("name").get<std::string>());
    const auto observations = observations_of(row.at("clusters"));
    const Interval interval = bootstrap_interval(observations, row.at("bootstrap_draws").get<int64_t>(),
                                                 row.at("bootstrap_seed").get<std::uint64_t>());
    EXPECT_NEAR(interval.low, row.at("bootstrap")[0].get<double>(), 1e-12);
    EXPECT_NEAR(interval.high, row.at("bootstrap")[1].get<double>(), 1e-12);
    if (row.at("bootstrap_exhaustive").is_null()) continue;
    const Interval many = bootstrap_interval(observations, 100000);
    EXPECT_NEAR(many.low, row.at("bootstrap_exhaustive")[0].get<double>(), 0.01);
    EXPECT_NEAR(many.high, row.at("bootstrap_exhaustive")[1].get<double>(), 0.01);
  }
}

TEST(Statistics, ClopperPearsonAgreesWithStatsmodels) {
  ASSERT_GE(golden().at("clopper_pearson").size(), 6u);
  for (const Json& row : golden().at("clopper_pearson")) {
    SCOPED_TRACE(row.dump());
    const auto [low, high] = clopper_pearson(row[0].get<int64_t>(), row[1].get<int64_t>(), row[2].get<double>());
    EXPECT_NEAR(low, row[3].get<double>(), 1e-11);
    EXPECT_NEAR(high, row[4].get<double>(), 1e-11);
  }
}

TEST(Statistics, FewDocumentsHaveIntervalsOverTheirQuestions) {
  const Estimate shares = estimate({{"a", 1}, {"a", 0}, {"b", 0}}, MetricScale::kShare);
  EXPECT_EQ(shares.interval.kind, IntervalKind::kWilson);
  EXPECT_EQ(shares.document_means, (std::vector<std::pair<std::string, double>>{{"a", 0.5}, {"b", 0}}));
  EXPECT_DOUBLE_EQ(shares.mean_of_documents, 0.25);
  EXPECT_FALSE(estimate({{"a", 1}}, MetricScale::kShare).bootstrap.exists());
  EXPECT_EQ(estimate({{"a", 0.5}, {"a", 0.25}}, MetricScale::kPositive).interval.kind, IntervalKind::kQuestionsLog);
  EXPECT_EQ(estimate({{"a", 0.5}}, MetricScale::kPositive).interval.kind, IntervalKind::kNone);
  EXPECT_EQ(estimate({}, MetricScale::kShare).n_questions, 0);
}

TEST(Statistics, IntervalsStayInsideTheRangeOfTheirMetric) {
  std::mt19937_64 random(19);
  std::uniform_real_distribution<double> uniform;
  for (int repeat = 0; repeat < 400; ++repeat) {
    std::vector<Observation> shares, positives, differences;
    const int documents = 2 + repeat % 9;
    for (int i = 0; i < 3 * documents; ++i) {
      const std::string document(1, static_cast<char>('a' + i % documents));
      shares.push_back({document, uniform(random) < 0.08 ? 1.0 : 0.0});
      positives.push_back({document, std::exp(6 * uniform(random) - 6)});
      differences.push_back({document, uniform(random) < 0.9 ? -1.0 : 0.0});
    }
    const Estimate share = estimate(shares, MetricScale::kShare),
                   positive = estimate(positives, MetricScale::kPositive);
    const Estimate difference = estimate(differences, MetricScale::kShareDifference);
    for (const auto& [interval, least] : {std::pair(share.interval, 0), std::pair(share.questions, 0),
                                          std::pair(difference.interval, -1), std::pair(difference.questions, -1)}) {
      EXPECT_GE(interval.low, least);
      EXPECT_LE(interval.high, 1);
      EXPECT_LT(interval.low, interval.high);
    }
    EXPECT_GT(positive.interval.low, 0);
    EXPECT_LT(positive.interval.low, positive.mean);
    EXPECT_GT(positive.interval.high, positive.mean);
  }
}

TEST(Statistics, EqualAnswersAreNoCertainty) {
  const auto all = [](double value) {
    std::vector<Observation> list;
    for (const char* document : {"a", "b", "c", "d", "e", "f"}) list.push_back({document, value});
    return list;
  };
  const Estimate right = estimate(all(1), MetricScale::kShare);
  EXPECT_EQ(right.interval.kind, IntervalKind::kDocumentsWilson);
  EXPECT_LT(right.interval.low, 0.6);
  EXPECT_EQ(right.interval.high, 1);
  const Estimate same = estimate(all(0), MetricScale::kShareDifference);
  EXPECT_EQ(same.interval.kind, IntervalKind::kExact);
  EXPECT_NEAR(same.interval.high, 1 - std::pow(0.05, 1.0 / 6), 1e-15);  // (1 - 0.393)^6 = 0.05
  EXPECT_EQ(same.interval.low, -same.interval.high);
  const Estimate worse = estimate(all(-1), MetricScale::kShareDifference);
  EXPECT_NEAR(worse.interval.low, -1, 1e-12);
  EXPECT_GT(worse.interval.high, -0.8);
  // Nothing to take a spread from: no interval rather than one of width 0.
  EXPECT_FALSE(estimate(all(0), MetricScale::kPositive).interval.exists());
}

TEST(Statistics, DoesNotDependOnTheOrder) {
  const Estimate one = estimate({{"a", 0.1}, {"b", 0.7}, {"a", 0.2}, {"c", 0.3}}, MetricScale::kPositive);
  const Estimate other = estimate({{"c", 0.3}, {"a", 0.1}, {"a", 0.2}, {"b", 0.7}}, MetricScale::kPositive);
  EXPECT_EQ(one.mean, other.mean);
  EXPECT_EQ(one.interval.low, other.interval.low);
  EXPECT_EQ(one.bootstrap.high, other.bootstrap.high);
}

// One run of `documents` documents whose difficulty differs: shares with mean 0.4 (or 0.92 with `high`), or KL-like
// values with mean 1 and a heavy tail to the right.
std::vector<Observation> simulated(int documents, MetricScale scale, bool high, std::mt19937_64& random) {
  std::uniform_real_distribution<double> uniform;
  std::normal_distribution<double> normal;
  std::uniform_int_distribution<int> n_questions(5, 15);
  std::vector<Observation> list;
  for (int document = 0; document < documents; ++document) {
    const double difficulty = high ? 0.84 + 0.16 * uniform(random) : 0.1 + 0.6 * uniform(random);
    const double level = std::exp(0.5 * normal(random) - 0.125);
    for (int i = n_questions(random); i > 0; --i) {
      const double value = scale == MetricScale::kShare ? (uniform(random) < difficulty ? 1.0 : 0.0)
                                                        : level * std::exp(0.8 * normal(random) - 0.32);
      list.push_back({std::to_string(document), value});
    }
  }
  return list;
}

// The measured coverage is the table of results/statistics.md.
TEST(Statistics, IntervalsCoverTheTruth) {
  struct Case {
    int documents;
    MetricScale scale;
    bool high;
    double least, most;
  };
  constexpr int kRepeats = 2000;
  const Case cases[] = {{2, MetricScale::kShare, false, 0.70, 0.97},    {5, MetricScale::kShare, false, 0.94, 1},
                        {10, MetricScale::kShare, false, 0.935, 0.985}, {30, MetricScale::kShare, false, 0.935, 0.97},
                        {5, MetricScale::kShare, true, 0.94, 1},        {10, MetricScale::kShare, true, 0.935, 0.99},
                        {30, MetricScale::kShare, true, 0.935, 0.98},   {2, MetricScale::kPositive, false, 0.6, 0.97},
                        {5, MetricScale::kPositive, false, 0.91, 0.99}, {10, MetricScale::kPositive, false, 0.91, 0.98},
                        {30, MetricScale::kPositive, false, 0.92, 0.97}};
  for (const Case& c : cases) {
    std::mt19937_64 random(5);
    const double truth = c.scale == MetricScale::kPositive ? 1 : c.high ? 0.92 : 0.4;
    int covered = 0, by_question = 0;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      const auto list = simulated(c.documents, c.scale, c.high, random);
      const Estimate e = estimate(list, c.scale);
      covered += e.interval.low <= truth && truth <= e.interval.high;
      by_question += e.questions.low <= truth && truth <= e.questions.high;
    }
    const std::string name = fmt::format("{} documents, {}", c.documents,
                                         c.scale == MetricScale::kPositive ? "KL"
                                         : c.high                          ? "share 0.92"
                                                                           : "share 0.4");
    std::cout << name << ": " << covered / double(kRepeats) << ", over questions " << by_question / double(kRepeats)
              << "\n";
    EXPECT_GE(covered, c.least * kRepeats) << name;
    EXPECT_LE(covered, c.most * kRepeats) << name;
    if (c.documents == 30 && !c.high) {
      EXPECT_LT(by_question, 0.9 * kRepeats) << name;
    }
  }
}

}  // namespace
}  // namespace kvc
