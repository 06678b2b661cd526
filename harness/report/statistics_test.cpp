#include "harness/report/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
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
    const Estimate result = estimate(observations_of(row.at("clusters")), row.at("share").get<bool>());
    expect_close(result.mean, row.at("mean").get<double>(), 1e-12);
    EXPECT_EQ(result.interval.kind, IntervalKind::kDocuments);
    EXPECT_EQ(result.interval.degrees, static_cast<int64_t>(row.at("clusters").size()) - 1);
    expect_close(result.interval.standard_error, row.at("standard_error").get<double>(), 1e-10);
    expect_close(result.interval.low, row.at("low").get<double>(), 1e-10);
    expect_close(result.interval.high, row.at("high").get<double>(), 1e-10);
    expect_close(result.questions.low, row.at("questions")[0].get<double>(), 1e-10);
    expect_close(result.questions.high, row.at("questions")[1].get<double>(), 1e-10);
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

TEST(Statistics, OneDocumentIsNeverGivenAnIntervalByDocument) {
  const Estimate shares = estimate({{"a", 1}, {"a", 0}, {"a", 0}}, true);
  EXPECT_EQ(shares.interval.kind, IntervalKind::kWilson);
  EXPECT_FALSE(shares.bootstrap.exists());
  const Estimate reals = estimate({{"a", 0.5}, {"a", 0.25}}, false);
  EXPECT_EQ(reals.interval.kind, IntervalKind::kQuestionsT);
  EXPECT_EQ(estimate({{"a", 0.5}}, false).interval.kind, IntervalKind::kNone);
  EXPECT_EQ(estimate({}, true).n_questions, 0);
}

TEST(Statistics, EverythingRightIsNoCertainty) {
  const Estimate right = estimate({{"a", 1}, {"a", 1}, {"b", 1}, {"b", 1}}, true);
  EXPECT_EQ(right.interval.kind, IntervalKind::kWilson);
  EXPECT_LT(right.interval.low, 0.6);
  // A KL of 0 everywhere is a measured 0.
  const Estimate zero = estimate({{"a", 0}, {"b", 0}}, false);
  EXPECT_EQ(zero.interval.kind, IntervalKind::kDocuments);
  EXPECT_EQ(zero.interval.half_width(), 0);
}

TEST(Statistics, DoesNotDependOnTheOrder) {
  const Estimate one = estimate({{"a", 0.1}, {"b", 0.7}, {"a", 0.2}, {"c", 0.3}}, false);
  const Estimate other = estimate({{"c", 0.3}, {"a", 0.1}, {"a", 0.2}, {"b", 0.7}}, false);
  EXPECT_EQ(one.mean, other.mean);
  EXPECT_EQ(one.interval.low, other.interval.low);
  EXPECT_EQ(one.bootstrap.high, other.bootstrap.high);
}

// Questions of a document share its difficulty. The clustered interval must hold the truth about 95 % of the time, the
// one that takes questions as independent clearly less often.
TEST(Statistics, ClusteredIntervalCoversTheTruth) {
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> uniform;
  std::uniform_int_distribution<int> n_questions(5, 25);
  constexpr int kRepeats = 3000;
  int by_document = 0, by_question = 0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    std::vector<Observation> list;
    double right = 0;
    for (int document = 0; document < 12; ++document) {
      const double difficulty = 0.1 + 0.6 * uniform(random);  // mean 0.4
      for (int i = n_questions(random); i > 0; --i) {
        list.push_back({std::string(1, static_cast<char>('a' + document)), uniform(random) < difficulty ? 1.0 : 0.0});
        right += list.back().value;
      }
    }
    const Interval clustered = clustered_interval(list);
    const Interval independent = wilson_interval(right, static_cast<int64_t>(list.size()));
    by_document += clustered.low <= 0.4 && 0.4 <= clustered.high;
    by_question += independent.low <= 0.4 && 0.4 <= independent.high;
  }
  EXPECT_GT(by_document, 0.925 * kRepeats);
  EXPECT_LT(by_document, 0.97 * kRepeats);
  EXPECT_LT(by_question, 0.88 * kRepeats);
}

}  // namespace
}  // namespace kvc
