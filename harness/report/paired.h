// Two methods on the same questions: who won how often, whether chance explains it, whether they are equivalent, and
// how small a difference a run like this one finds (power.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/report/statistics.h"

namespace kvc {

// Both methods' values of one question.
struct PairedValues {
  std::string document;
  double first = 0, second = 0;
};

// What `Pair::p` comes from.
enum class PairTest : std::uint8_t {
  kTooFew,    // no test: too few documents
  kMcNemar,   // shares, below kFewDocuments documents: changed answers as coins; speaks of these documents only
  kShares,    // shares: the larger p of the t test clustered by document and the changed answers
  kLogRatio,  // t test of the documents' log ratios
  kSignFlip,  // the documents' differences with all signs
  kReal,      // t test clustered by document
};

// "too few documents", "mcnemar", "documents_t_and_mcnemar", "documents_log_ratio", "documents_sign_flip",
// "documents_t": the word in report.json.
std::string_view test_name(PairTest test);

struct Pair {
  int64_t wins = 0, losses = 0, ties = 0;  // of the first, by question; a higher value wins; round-off is a tie
  Estimate difference;                     // mean of first - second
  double mean_square = 0;                  // of the differences; of 0 and 1 the share of questions that changed
  // Positive metrics: geometric mean over documents of (mean of the first / mean of the second), with its interval by
  // t on the log; nothing below kFewDocuments documents, or where a document's mean is 0.
  std::optional<double> ratio;
  Interval ratio_interval;
  std::optional<double> p_mcnemar;    // shares of 0 and 1
  std::optional<double> p_sign_flip;  // other shares, by question; positive metrics with a mean of 0, by document
  std::optional<double> p_documents;  // of the t statistic
  PairTest test = PairTest::kTooFew;
  std::optional<double> p;  // what decides; nothing: the documents are too few to decide
};

// P of a split of wins and losses at least as uneven as this one when each is a fair coin, two-sided; ties say nothing.
// min(1, 2 sum_{i <= min(wins, losses)} C(n, i) / 2^n), n = wins + losses; 1 when n = 0. McNemar, 1947, in its exact
// form. Questions are taken as independent.
double mcnemar_exact(int64_t wins, int64_t losses);

// Share of all 2^n ways to give `values` signs whose |sum| is at least the one seen: two-sided p of "each value is as
// likely x as -x". Exact up to kExactFlips values other than 0, else of kFlipDraws seeded draws. For values of -1 and 1
// this is McNemar's exact test. Fisher, 1935.
double sign_flip_test(const std::vector<double>& values);
constexpr size_t kExactFlips = 16;
constexpr int64_t kFlipDraws = 20000;

// Adjusted p-values in the order given: the i-th smallest of m is max over j <= i of (m - j + 1) p_(j), at most 1. A
// hypothesis is rejected at level a, the chance of any false rejection being at most a, when its adjusted p is <= a.
// Holm, 1979.
std::vector<double> holm(const std::vector<double>& p);

// Adjusted p-values in the order given: the i-th smallest of m is min over j >= i of m p_(j) / j, at most 1. Of the
// hypotheses whose adjusted p is <= a, an expected share of at most a is rejected falsely. Benjamini & Hochberg, 1995.
std::vector<double> benjamini_hochberg(const std::vector<double>& p);

// Two-sided p of mean = 0, of the t statistic behind a `kDocuments` interval; nothing for other kinds. Where nothing
// spreads: 1 when the mean is 0, else 2^(1 - G), the chance that G coins fall alike.
std::optional<double> t_test(double mean, const Interval& interval);

// `scale` is that of the metric: kShare, kPositive or kReal. With kFewDocuments documents or more:
//   kShare     `p` is the larger of p_documents and p_mcnemar (of shares other than 0 and 1, p_sign_flip where at most
//              kExactFlips questions changed): neither dependent questions nor a handful of changed answers decide
//              alone
//   kPositive  t test over documents of log(mean of the first / mean of the second), where no mean is 0, else the
//              sign-flip test of the documents' differences
//   kReal      p_documents
// With fewer, shares are decided by p_mcnemar (p_sign_flip), which speaks of these documents only, and nothing else is.
Pair compare_pair(const std::vector<PairedValues>& values, MetricScale scale);

// Clustered variance of the mean difference over that of independent questions, at least 1.
double design_effect(const Pair& pair);

// Two one-sided tests (Schuirmann, 1987): p of "the mean difference is `margin` or more away from 0". Equivalence
// within `margin` is shown at 5 % when it is at most 0.05. Of the t statistic behind `difference.interval`; for shares
// with a standard error not below the one that a difference of `margin` would have, and not less than the chance that a
// share of `margin` changes as few answers as changed here: a t statistic of a handful of changed answers claims too
// much. Nothing where the interval is no t interval (below kFewDocuments documents only shares have one), and for a
// margin that is not positive.
std::optional<double> equivalence_test(const Pair& pair, MetricScale scale, double margin);

// The same for a positive metric whose value on the full cache is 0 by definition (KL): p of "the mean is `margin` or
// more", by t on the log of the mean. Nothing below kFewDocuments documents.
std::optional<double> below_margin_test(const Estimate& estimate, double margin);

}  // namespace kvc
