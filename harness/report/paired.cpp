#include "harness/report/paired.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kvc {
namespace {

constexpr double kNoSpread = 1e-12;

const Interval* deciding_interval(const Pair& pair) {
  const Estimate& difference = pair.difference;
  if (difference.n_documents >= kFewDocuments && difference.interval.kind == IntervalKind::kDocuments)
    return &difference.interval;
  return difference.questions.kind == IntervalKind::kQuestionsT ? &difference.questions : nullptr;
}

}  // namespace

double mcnemar_exact(int64_t wins, int64_t losses) {
  const int64_t n = wins + losses;
  const int64_t fewer = std::min(wins, losses);
  double log_term = -static_cast<double>(n) * std::log(2.0);  // of C(n, 0) / 2^n
  double sum = std::exp(log_term);
  for (int64_t i = 1; i <= fewer; ++i) {
    log_term += std::log(static_cast<double>(n - i + 1)) - std::log(static_cast<double>(i));
    sum += std::exp(log_term);
  }
  return std::min(1.0, 2 * sum);
}

std::vector<double> holm(const std::vector<double>& p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] < p[b]; });
  std::vector<double> adjusted(p.size());
  double largest = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    largest = std::max(largest, static_cast<double>(p.size() - i) * p[order[i]]);
    adjusted[order[i]] = std::min(1.0, largest);
  }
  return adjusted;
}

std::optional<double> t_test(double mean, const Interval& interval) {
  if (interval.kind != IntervalKind::kDocuments && interval.kind != IntervalKind::kQuestionsT) return std::nullopt;
  if (interval.standard_error < kNoSpread) return std::abs(mean) < kNoSpread ? 1.0 : 0.0;
  return 2 * student_t_cdf(-std::abs(mean / interval.standard_error), static_cast<double>(interval.degrees));
}

Pair compare_pair(const std::vector<Observation>& differences, bool share) {
  Pair pair;
  for (const Observation& o : differences) ++(o.value > 0 ? pair.wins : o.value < 0 ? pair.losses : pair.ties);
  pair.difference = estimate(differences, false);
  if (differences.empty()) return pair;
  if (share) pair.p_mcnemar = mcnemar_exact(pair.wins, pair.losses);
  if (pair.difference.interval.kind == IntervalKind::kDocuments)
    pair.p_documents = t_test(pair.difference.mean, pair.difference.interval);
  if (!share) pair.p_questions = t_test(pair.difference.mean, pair.difference.questions);
  if (pair.difference.n_documents >= kFewDocuments && pair.p_documents) {
    pair.p = std::max(*pair.p_documents, pair.p_mcnemar.value_or(0));
  } else {
    pair.p = share ? *pair.p_mcnemar : pair.p_questions.value_or(1);
  }
  return pair;
}

std::optional<double> detectable_difference(const Pair& pair, double level, bool share) {
  const Interval* interval = deciding_interval(pair);
  if (interval == nullptr) return std::nullopt;
  const auto degrees = static_cast<double>(interval->degrees);
  const double factor = student_t_quantile(1 - level / 2, degrees) + student_t_quantile(kPower, degrees);
  double difference = factor * interval->standard_error;
  if (!share) return difference;
  const double changed = std::ceil(1 - std::log2(level) - 1e-9);
  difference = std::max(difference, changed / static_cast<double>(pair.difference.n_questions));
  return difference <= 1 ? std::optional(difference) : std::nullopt;
}

}  // namespace kvc
