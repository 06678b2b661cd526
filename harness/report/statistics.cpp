#include "harness/report/statistics.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <boost/math/special_functions/beta.hpp>
#include <cmath>
#include <map>

#include "harness/report/resampling.h"

namespace kvc {
namespace {

constexpr double kNormalQuantile = 1.959963984540054;  // of 0.975

struct Cluster {
  double sum = 0;
  double count = 0;
};

std::vector<Cluster> clusters_of(const std::vector<Observation>& observations,
                                 std::vector<std::string>* names = nullptr) {
  std::map<std::string, Cluster> by_document;  // ordered, so that the sums never depend on the order of the records
  const std::string* document = nullptr;       // observations mostly come document by document
  Cluster* cluster = nullptr;
  for (const Observation& o : observations) {
    if (document == nullptr || *document != o.document) {
      document = &o.document;
      cluster = &by_document[o.document];
    }
    cluster->sum += o.value;
    cluster->count += 1;
  }
  std::vector<Cluster> list;
  for (const auto& [name, total] : by_document) {
    list.push_back(total);
    if (names != nullptr) names->push_back(name);
  }
  return list;
}

double mean_of(const std::vector<Cluster>& clusters) {
  double sum = 0;
  double count = 0;
  for (const Cluster& cluster : clusters) {
    sum += cluster.sum;
    count += cluster.count;
  }
  return sum / count;
}

// The mean, its clustered standard error and what is needed for an interval.
struct Spread {
  double mean = 0;
  double standard_error = 0;
  double n = 0;          // questions
  int64_t clusters = 0;  // documents, or questions
  int64_t degrees() const { return clusters - 1; }
  double t() const { return student_t_quantile(0.5 + kLevel / 2, static_cast<double>(degrees())); }
};

Spread spread_of(const std::vector<Cluster>& clusters) {
  Spread spread;
  spread.mean = mean_of(clusters);
  spread.clusters = static_cast<int64_t>(clusters.size());
  double squares = 0;
  for (const Cluster& cluster : clusters) {
    const double residual = cluster.sum - spread.mean * cluster.count;
    squares += residual * residual;
    spread.n += cluster.count;
  }
  const auto g = static_cast<double>(clusters.size());
  if (g > 1) spread.standard_error = std::sqrt(g / (g - 1) * squares) / spread.n;
  return spread;
}

Interval wilson(double p, double n, double z, IntervalKind kind) {
  const double z2 = z * z;
  const double middle = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = z / (1 + z2 / n) * std::sqrt(std::max(0.0, p * (1 - p) / n) + z2 / (4 * n * n));
  return {kind, std::max(0.0, middle - half), std::min(1.0, middle + half), 0, 0};
}

Interval t_interval(const Spread& spread, IntervalKind kind) {
  const double half = spread.standard_error * spread.t();
  return {kind, spread.mean - half, spread.mean + half, spread.standard_error, spread.degrees()};
}

Interval share_interval(const Spread& spread, bool by_document) {
  const double p = std::clamp(spread.mean, 0.0, 1.0);
  if (!by_document) return wilson(p, spread.n, kNormalQuantile, IntervalKind::kWilson);
  if (spread.clusters < 2) return {};
  const double independent = p * (1 - p) / spread.n;
  const double effect =
      independent > kNoSpread * kNoSpread ? spread.standard_error * spread.standard_error / independent : 1;
  Interval interval = wilson(p, spread.n / std::max(1.0, effect), spread.t(), IntervalKind::kDocumentsWilson);
  interval.standard_error = spread.standard_error;
  interval.degrees = spread.degrees();
  return interval;
}

Interval log_interval(const Spread& spread, bool by_document) {
  if (spread.clusters < 2 || !(spread.mean > 0)) return {};
  const double error = spread.standard_error / spread.mean;
  const double factor = std::exp(spread.t() * error);
  return {by_document ? IntervalKind::kDocumentsLog : IntervalKind::kQuestionsLog, spread.mean / factor,
          spread.mean * factor, error, spread.degrees()};
}

Interval difference_interval(const Spread& spread, bool by_document, const std::vector<Observation>& observations) {
  if (spread.clusters < 2 || spread.standard_error < kNoSpread) {
    int64_t wins = 0, losses = 0;
    bool binary = true;
    for (const Observation& o : observations) {
      wins += o.value > kNoSpread;
      losses += o.value < -kNoSpread;
      binary = binary && (std::abs(o.value) < kNoSpread || std::abs(o.value) == 1);
    }
    return exact_difference_interval(wins, losses, static_cast<int64_t>(observations.size()), binary);
  }
  Interval interval = t_interval(spread, by_document ? IntervalKind::kDocuments : IntervalKind::kQuestionsT);
  interval.low = std::max(-1.0, interval.low);
  interval.high = std::min(1.0, interval.high);
  return interval;
}

Interval interval_of(const std::vector<Cluster>& clusters, MetricScale scale, bool by_document,
                     const std::vector<Observation>& observations) {
  const Spread spread = spread_of(clusters);
  switch (scale) {
    case MetricScale::kShare:
      return share_interval(spread, by_document);
    case MetricScale::kPositive:
      return log_interval(spread, by_document);
    case MetricScale::kShareDifference:
      return difference_interval(spread, by_document, observations);
    case MetricScale::kReal:
      break;
  }
  if (spread.clusters < 2) return {};
  return t_interval(spread, by_document ? IntervalKind::kDocuments : IntervalKind::kQuestionsT);
}

}  // namespace

std::string_view interval_name(IntervalKind kind) {
  switch (kind) {
    case IntervalKind::kDocuments:
      return "documents_t";
    case IntervalKind::kDocumentsWilson:
      return "documents_wilson";
    case IntervalKind::kDocumentsLog:
      return "documents_log";
    case IntervalKind::kBootstrap:
      return "documents_bootstrap";
    case IntervalKind::kWilson:
      return "questions_wilson";
    case IntervalKind::kQuestionsT:
      return "questions_t";
    case IntervalKind::kQuestionsLog:
      return "questions_log";
    case IntervalKind::kExact:
      return "exact";
    case IntervalKind::kNone:
      break;
  }
  return "none";
}

double student_t_cdf(double t, double degrees) {
  return boost::math::cdf(boost::math::students_t(degrees), t);
}

double student_t_quantile(double p, double degrees) {
  // Half a millisecond each, and a report asks for the same few of them ten thousand times.
  thread_local std::map<std::pair<double, double>, double> known;
  const auto found = known.find({p, degrees});
  if (found != known.end()) return found->second;
  if (known.size() > 1000) known.clear();
  return known[{p, degrees}] = boost::math::quantile(boost::math::students_t(degrees), p);
}

Interval clustered_interval(const std::vector<Observation>& observations) {
  const std::vector<Cluster> clusters = clusters_of(observations);
  if (clusters.size() < 2) return {};
  return t_interval(spread_of(clusters), IntervalKind::kDocuments);
}

Interval bootstrap_interval(const std::vector<Observation>& observations, int64_t draws, std::uint64_t seed) {
  const std::vector<Cluster> clusters = clusters_of(observations);
  if (clusters.size() < 2 || draws < 2) return {};
  std::vector<double> sums, counts;
  for (const Cluster& cluster : clusters) {
    sums.push_back(cluster.sum);
    counts.push_back(cluster.count);
  }
  const Resamples& resamples = resamples_of(clusters.size(), draws, seed);
  std::vector<double> means = resamples.sums(sums);
  const bool equal = std::all_of(counts.begin(), counts.end(), [&](double count) { return count == counts.front(); });
  const std::vector<double> totals =
      equal ? std::vector<double>(means.size(), counts.front() * static_cast<double>(clusters.size()))
            : resamples.sums(counts);
  for (size_t draw = 0; draw < means.size(); ++draw) means[draw] /= totals[draw];
  const double edge = (1 - kLevel) / 2;
  return {IntervalKind::kBootstrap, percentile(means, edge), percentile(means, 1 - edge), 0, 0};
}

Interval wilson_interval(double successes, int64_t n) {
  const auto count = static_cast<double>(n);
  return wilson(successes / count, count, kNormalQuantile, IntervalKind::kWilson);
}

std::pair<double, double> clopper_pearson(int64_t successes, int64_t n, double level) {
  const auto k = static_cast<double>(successes);
  const auto rest = static_cast<double>(n - successes);
  const double edge = (1 - level) / 2;
  const double low = successes == 0 ? 0 : boost::math::ibeta_inv(k, rest + 1, edge);
  const double high = successes == n ? 1 : boost::math::ibeta_inv(k + 1, rest, 1 - edge);
  return {low, high};
}

Interval exact_difference_interval(int64_t wins, int64_t losses, int64_t n, bool binary) {
  if (n < 1) return {};
  if (wins + losses == 0) {
    const double most = 1 - std::pow(1 - kLevel, 1 / static_cast<double>(n));
    return {IntervalKind::kExact, -most, most, 0, 0};
  }
  const auto [win_low, win_high] = clopper_pearson(wins, n, (1 + kLevel) / 2);
  const auto [loss_low, loss_high] = clopper_pearson(losses, n, (1 + kLevel) / 2);
  return {IntervalKind::kExact, (binary ? win_low : 0) - loss_high, win_high - (binary ? loss_low : 0), 0, 0};
}

Estimate estimate(const std::vector<Observation>& observations, MetricScale scale) {
  Estimate result;
  if (observations.empty()) return result;
  std::vector<std::string> names;
  const std::vector<Cluster> clusters = clusters_of(observations, &names);
  result.mean = mean_of(clusters);
  result.n_questions = static_cast<int64_t>(observations.size());
  result.n_documents = static_cast<int64_t>(clusters.size());
  const bool few = result.n_documents < kFewDocuments;
  for (size_t g = 0; g < clusters.size(); ++g) {
    const double mean = clusters[g].sum / clusters[g].count;
    result.mean_of_documents += mean / static_cast<double>(clusters.size());
    if (few) result.document_means.emplace_back(names[g], mean);
  }
  std::vector<Cluster> questions;
  questions.reserve(observations.size());
  for (const Observation& o : observations) questions.push_back({o.value, 1});
  result.questions = interval_of(questions, scale, false, observations);
  if (!few) result.interval = interval_of(clusters, scale, true, observations);
  if (!result.interval.exists()) result.interval = result.questions;
  result.bootstrap = bootstrap_interval(observations);
  return result;
}

}  // namespace kvc
