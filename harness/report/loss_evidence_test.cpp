#include "harness/report/loss_evidence.h"

#include <gmock/gmock.h>

#include <boost/math/distributions/binomial.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "harness/report/statistics.h"

namespace kvc {
namespace {

constexpr int kEvidenceRuns = 2000;
constexpr double kLevel05 = 0.05;
// What a chance of 5 % may show in 2,000 runs: three standard errors more.
const double kMostWrong = kEvidenceRuns * kLevel05 + 3 * std::sqrt(kEvidenceRuns * 0.05 * 0.95);

double uniform(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

// Documents of 1 to `most` questions, of which the full cache answers about `right`, and of these a method loses a
// share that differs from document to document around `loss`: `spread` 0 none, 1 a document loses everything or
// nothing.
struct Source {
  int most = 1;
  double right = 1, loss = 0.05, spread = 0;
  DocumentLoss draw(std::mt19937_64& random) const {
    const int n = most == 1 ? 1 : 1 + static_cast<int>(random() % static_cast<unsigned>(most));
    DocumentLoss document;
    const bool bad = uniform(random) < loss;
    for (int i = 0; i < n; ++i) {
      if (uniform(random) >= right) continue;
      document.right += 1;
      const double chance = (1 - spread) * loss + spread * (bad ? 1 : 0);
      if (uniform(random) < chance) document.lost += 1;
    }
    return document;
  }
};

// The wealth as the header defines it, in long double products.
std::pair<double, double> naive(const std::vector<DocumentLoss>& documents, double tolerance, double most) {
  long double best_in = 1, best_out = 1;
  for (size_t n = 1; n <= documents.size(); ++n) {
    long double in = 0, out = 0;
    for (size_t b = 0; b < kNBets; ++b) {
      long double wealth = kStakes[b];
      for (size_t i = 0; i < n; ++i)
        wealth *= 1 - kBets[b] * (documents[i].lost - tolerance * documents[i].right) / most / (1 - tolerance);
      in += wealth;
    }
    for (const double bet : kOutsideBets) {
      long double wealth = 1.0L / kNOutsideBets;
      for (size_t i = 0; i < n; ++i)
        wealth *= 1 + bet * (documents[i].lost - tolerance * documents[i].right) / most / tolerance;
      out += wealth;
    }
    best_in = std::max(best_in, in);
    best_out = std::max(best_out, out);
  }
  return {static_cast<double>(std::log(best_in)), static_cast<double>(std::log(best_out))};
}

TEST(LossEvidence, IsTheLargestWealthOfAMixtureOfBets) {
  std::mt19937_64 random(3);
  for (const double loss : {0.0, 0.03, 0.4}) {
    std::vector<DocumentLoss> documents;
    LossEvidence evidence(0.05, 6);
    for (int i = 0; i < 60; ++i) {
      documents.push_back(Source{6, 0.7, loss, 0.5}.draw(random));
      evidence.add(documents.back());
      const auto [in, out] = naive(documents, 0.05, 6);
      ASSERT_NEAR(evidence.inside(), in, 1e-9 * (1 + std::abs(in)));
      ASSERT_NEAR(evidence.outside(), out, 1e-9 * (1 + std::abs(out)));
    }
  }
}

TEST(LossEvidence, ADocumentThatLosesEverythingTakesTheGreatestBetAndLeavesTheOthers) {
  LossEvidence evidence(0.01, 1);
  evidence.add({1, 1});
  EXPECT_EQ(evidence.inside(), 0);  // the stake was the most so far
  const auto after = [&](size_t n) { return evidence.reachable(lossless_gains(0.01, std::vector<double>(n, 1), 1)); };
  EXPECT_EQ(after(0), 0);
  EXPECT_LT(after(328), std::log(20));
  EXPECT_GT(after(1000), std::log(20));
}

// Every run may stop at any document: a false certificate is one that ever comes.
TEST(LossEvidence, LossesAtTheToleranceAreRarelyCertifiedWheneverOneLooks) {
  for (const double spread : {0.0, 0.6, 1.0}) {
    for (const int n : {5, 10, 30, 200}) {
      std::mt19937_64 random(11 + n);
      int inside = 0, outside = 0;
      for (int run = 0; run < kEvidenceRuns; ++run) {
        LossEvidence evidence(0.2, 5);
        for (int i = 0; i < n; ++i) evidence.add(Source{5, 0.8, 0.2, spread}.draw(random));
        inside += evidence.inside() >= std::log(20) ? 1 : 0;
        outside += evidence.outside() >= std::log(20) ? 1 : 0;
      }
      EXPECT_LE(inside, kMostWrong) << n << " documents, spread " << spread;
      EXPECT_LE(outside, kMostWrong) << n << " documents, spread " << spread;
    }
  }
}

// Bounds of both sides together, at the moment that is worst: where the method is decidedly outside.
TEST(LossEvidence, SequentialIntervalCoversTheLossOfRunsThatStopEarlyAndOrdinaryOnesDoNot) {
  int covered = 0, ordinary = 0, stopped = 0;
  std::mt19937_64 random(5);
  for (int run = 0; run < kEvidenceRuns; ++run) {
    const double truth = 0.08, tolerance = 0.05;
    std::vector<DocumentLoss> documents;
    LossEvidence evidence(tolerance, 3);
    double right = 0, lost = 0;
    // Stops where the share lost looks worst against a plain interval: an adversary who may look after every document.
    for (int i = 0; i < 80; ++i) {
      documents.push_back(Source{3, 0.9, truth, 0}.draw(random));
      evidence.add(documents.back());
      right += documents.back().right;
      lost += documents.back().lost;
      if (right >= 10 && wilson_interval(lost, static_cast<int64_t>(right)).low > truth) break;
    }
    if (documents.size() < 80) ++stopped;
    const double low = loss_lower_bound(documents, 3, kLevel05 / 2),
                 high = loss_upper_bound(documents, 3, kLevel05 / 2);
    covered += low <= truth && truth <= high ? 1 : 0;
    const Interval plain = wilson_interval(lost, static_cast<int64_t>(right));
    ordinary += plain.low <= truth && truth <= plain.high ? 1 : 0;
  }
  EXPECT_GE(covered, kEvidenceRuns - kMostWrong);
  EXPECT_LT(ordinary, kEvidenceRuns - kMostWrong);  // so that the test could fail
  EXPECT_GT(stopped, 100);
}

TEST(LossEvidence, BoundsAreWhereTheEvidenceTurns) {
  std::mt19937_64 random(8);
  std::vector<DocumentLoss> documents;
  for (int i = 0; i < 120; ++i) documents.push_back(Source{4, 0.8, 0.1, 0.3}.draw(random));
  const double high = loss_upper_bound(documents, 4, 0.05), low = loss_lower_bound(documents, 4, 0.05);
  const double loss = *measured_loss(documents);
  EXPECT_LT(low, loss);
  EXPECT_GT(high, loss);
  const auto inside = [&](double tolerance) { return naive(documents, tolerance, 4).first; };
  const auto outside = [&](double tolerance) { return naive(documents, tolerance, 4).second; };
  EXPECT_NEAR(inside(high), std::log(20), 1e-4);
  EXPECT_NEAR(outside(low), std::log(20), 1e-4);
  EXPECT_LT(inside(high - 1e-3), std::log(20));
  EXPECT_GT(inside(high + 1e-3), std::log(20));
  EXPECT_EQ(loss_upper_bound({}, 4, 0.05), 1);
  EXPECT_EQ(loss_lower_bound({}, 4, 0.05), 0);
}

TEST(LossEvidence, SaysHowManyDocumentsWithoutALossAreNeeded) {
  EXPECT_EQ(lossless_documents(0.01, 1, 0.05), 328);
  EXPECT_EQ(lossless_documents(0.05, 1, 0.05), 65);
  EXPECT_GT(lossless_documents(0.05, 0.5, 0.05), 2 * 60);
  const std::vector<double> right(30, 1);
  EXPECT_FALSE(can_certify(0.01, right, 1, 0.05));
  const double least = smallest_tolerance(right, 1, 0.05);
  EXPECT_TRUE(can_certify(least, right, 1, 0.05));
  EXPECT_FALSE(can_certify(least * 0.999, right, 1, 0.05));
  EXPECT_NEAR(least, 0.105, 0.002);
  EXPECT_EQ(smallest_tolerance({}, 1, 0.05), 1);
}

TEST(LossEvidence, SaysHowManyMoreDocumentsLikeTheseWouldDecide) {
  std::vector<DocumentLoss> documents(100, {0, 1});
  EXPECT_EQ(more_documents(documents, 0.01, 1, 0.05), 228);  // 328 without a loss
  EXPECT_EQ(more_documents(documents, 0.05, 1, 0.05), 0);
  documents[50].lost = 1;
  const auto more = more_documents(documents, 0.03, 1, 0.05);
  ASSERT_TRUE(more.has_value());
  LossEvidence evidence(0.03, 1);
  for (int64_t i = 0; i < 100 + *more; ++i) evidence.add(documents[static_cast<size_t>(i) % 100]);
  EXPECT_NEAR(evidence.inside(), std::log(20), 0.5);
  EXPECT_EQ(more_documents(documents, 0.01, 1, 0.05), std::nullopt);  // a loss at the tolerance
}

// P of Hoeffding and Bentkus for n documents fixed beforehand (Bates et al., arXiv:2101.02703).
double hoeffding_bentkus(double mean, int n, double tolerance) {
  if (mean >= tolerance) return 1;
  const double h = mean <= 0 ? -std::log(1 - tolerance)
                             : mean * std::log(mean / tolerance) + (1 - mean) * std::log((1 - mean) / (1 - tolerance));
  const boost::math::binomial number(n, tolerance);
  return std::min({1.0, std::exp(-n * h), std::exp(1.0) * boost::math::cdf(number, std::ceil(n * mean))});
}

// How often each shows a loss below the tolerance, where it is: an exact binomial and a Hoeffding-Bentkus test of n
// documents fixed beforehand, and the evidence, which stops as soon as it can. results/recommend.md shows these
// numbers.
TEST(LossEvidence, PowerBesideTestsOfAFixedNumberOfDocuments) {
  struct Case {
    double tolerance, loss;
    int n;
    double exact, bentkus, betting;  // chances
    double used;                     // documents, mean
  };
  for (const Case& c : {Case{0.05, 0, 80, 1, 1, 1, 65}, Case{0.05, 0.005, 120, 0.88, 0.88, 0.71, 81},
                        Case{0.05, 0.01, 200, 0.95, 0.86, 0.79, 118}, Case{0.1, 0.02, 100, 0.95, 0.87, 0.80, 58},
                        Case{0.2, 0.05, 60, 0.97, 0.93, 0.81, 32}, Case{0.01, 0.001, 600, 0.88, 0.88, 0.71, 406}}) {
    std::mt19937_64 random(17);
    double exact = 0, bentkus = 0, betting = 0, used = 0;
    for (int run = 0; run < kEvidenceRuns; ++run) {
      LossEvidence evidence(c.tolerance, 1);
      double lost = 0;
      int stopped = c.n;
      for (int i = 1; i <= c.n; ++i) {
        const DocumentLoss document = Source{1, 1, c.loss, 0}.draw(random);
        lost += document.lost;
        evidence.add(document);
        if (stopped == c.n && evidence.inside() >= std::log(20)) stopped = i;
      }
      exact += boost::math::cdf(boost::math::binomial(c.n, c.tolerance), lost) <= 0.05 ? 1 : 0;
      bentkus += hoeffding_bentkus(lost / c.n, c.n, c.tolerance) <= 0.05 ? 1 : 0;
      betting += evidence.inside() >= std::log(20) ? 1 : 0;
      used += stopped;
    }
    const std::string what = "tolerance " + std::to_string(c.tolerance) + ", loss " + std::to_string(c.loss);
    EXPECT_NEAR(exact / kEvidenceRuns, c.exact, 0.01) << what;
    EXPECT_NEAR(bentkus / kEvidenceRuns, c.bentkus, 0.01) << what;
    EXPECT_NEAR(betting / kEvidenceRuns, c.betting, 0.01) << what;
    EXPECT_NEAR(used / kEvidenceRuns, c.used, 1) << what;
  }
}

}  // namespace
}  // namespace kvc
