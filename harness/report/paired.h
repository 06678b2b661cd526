// Two methods on the same questions: who won how often, whether chance explains it, and what could have been seen.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "harness/report/statistics.h"

namespace kvc {

// P of a split of wins and losses at least as uneven as this one when each is a fair coin, two-sided; ties say nothing.
// min(1, 2 sum_{i <= min(wins, losses)} C(n, i) / 2^n), n = wins + losses; 1 when n = 0. McNemar, 1947, in its exact
// form. Questions are taken as independent. Cost O(min(wins, losses)).
double mcnemar_exact(int64_t wins, int64_t losses);

// Adjusted p-values in the order given: the i-th smallest of m is max over j <= i of (m - j + 1) p_(j), at most 1. A
// hypothesis is rejected at level a, the chance of any false rejection being at most a, when its adjusted p is <= a.
// Holm, 1979.
std::vector<double> holm(const std::vector<double>& p);

// Two-sided p of mean = 0, of the t statistic behind `interval` (kDocuments or kQuestionsT); nothing for other kinds. A
// spread of 0 gives 1 when the mean is 0, else 0.
std::optional<double> t_test(double mean, const Interval& interval);

struct Pair {
  int64_t wins = 0, losses = 0, ties = 0;  // of the first, by question; a higher value wins
  Estimate difference;                     // first - second, by question; difference.bootstrap is by document
  std::optional<double> p_mcnemar;         // of shares
  std::optional<double> p_documents;       // of the t statistic clustered by document
  std::optional<double> p_questions;       // of the t statistic over questions, not for shares
  // What decides. With kFewDocuments documents or more p_documents, for shares the larger of it and p_mcnemar: neither
  // dependent questions nor a handful of changed answers then decide alone. With fewer p_mcnemar or p_questions, which
  // speak of these documents only. 1 when nothing can be computed.
  double p = 1;
};

// `differences`: first - second of each question with its document. `share`: the values compared are 0 or 1.
Pair compare_pair(const std::vector<Observation>& differences, bool share);

constexpr double kPower = 0.8;

// The smallest true difference that a two-sided test at `level` finds in kPower of runs like this one:
// (t_{1 - level/2} + t_{kPower}) se, with the standard error and degrees of freedom of the test that decides. For
// shares at least d / N, with d the fewest changed answers, all in one direction, that McNemar's test can decide by:
// 2^(1-d) <= level. Nothing when no difference could be seen.
std::optional<double> detectable_difference(const Pair& pair, double level, bool share);

}  // namespace kvc
