#include "harness/report/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "harness/report/resampling.h"

namespace kvc {
namespace {

constexpr double kNormalQuantile = 1.959963984540054;  // of 0.975

struct Cluster {
  double sum = 0;
  double count = 0;
};

std::vector<Cluster> clusters_of(const std::vector<Observation>& observations) {
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
  for (const auto& [name, total] : by_document) list.push_back(total);
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

Interval t_interval(IntervalKind kind, double mean, double standard_error, int64_t degrees) {
  const double half = standard_error * student_t_quantile(0.5 + kLevel / 2, static_cast<double>(degrees));
  return {kind, mean - half, mean + half, standard_error, degrees};
}

Interval questions_t_interval(const std::vector<Observation>& observations, double mean) {
  if (observations.size() < 2) return {};
  double squares = 0;
  for (const Observation& o : observations) squares += (o.value - mean) * (o.value - mean);
  const auto n = static_cast<double>(observations.size());
  return t_interval(IntervalKind::kQuestionsT, mean, std::sqrt(squares / (n - 1) / n),
                    static_cast<int64_t>(observations.size()) - 1);
}

// Continued fraction of the incomplete beta function by Lentz's method (Numerical Recipes, 6.4).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  const auto guarded = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
  double c = 1;
  double d = 1 / guarded(1 - (a + b) * x / (a + 1));
  double result = d;
  for (int m = 1; m <= 10000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / guarded(1 + even * d);
    c = guarded(1 + even / c);
    result *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / guarded(1 + odd * d);
    c = guarded(1 + odd / c);
    result *= d * c;
    if (std::abs(d * c - 1) < 1e-16) break;
  }
  return result;
}

// I_x(a, b); `x_complement` = 1 - x, given apart because it may be too small to be told from the difference.
double incomplete_beta(double a, double b, double x, double x_complement) {
  if (x <= 0) return 0;
  if (x_complement <= 0) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log(x_complement));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, x_complement) / b;
}

double upper_tail(double t, double degrees) {  // t >= 0
  const double denominator = degrees + t * t;
  return 0.5 * incomplete_beta(degrees / 2, 0.5, degrees / denominator, t * t / denominator);
}

}  // namespace

std::string_view interval_name(IntervalKind kind) {
  switch (kind) {
    case IntervalKind::kDocuments:
      return "documents_t";
    case IntervalKind::kBootstrap:
      return "documents_bootstrap";
    case IntervalKind::kWilson:
      return "questions_wilson";
    case IntervalKind::kQuestionsT:
      return "questions_t";
    case IntervalKind::kNone:
      break;
  }
  return "none";
}

double student_t_cdf(double t, double degrees) {
  return t < 0 ? upper_tail(-t, degrees) : 1 - upper_tail(t, degrees);
}

double student_t_quantile(double p, double degrees) {
  if (p == 0.5) return 0;
  const double tail = std::min(p, 1 - p);
  double low = 0;
  double high = 1;
  while (upper_tail(high, degrees) > tail && high < 1e300) high *= 2;
  while (high - low > 1e-14 * high) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    (upper_tail(middle, degrees) > tail ? low : high) = middle;
  }
  const double t = low + (high - low) / 2;
  return p < 0.5 ? -t : t;
}

Interval clustered_interval(const std::vector<Observation>& observations) {
  const std::vector<Cluster> clusters = clusters_of(observations);
  if (clusters.size() < 2) return {};
  const double mean = mean_of(clusters);
  double squares = 0;
  for (const Cluster& cluster : clusters) {
    const double residual = cluster.sum - mean * cluster.count;
    squares += residual * residual;
  }
  const auto n = static_cast<double>(observations.size());
  const auto g = static_cast<double>(clusters.size());
  return t_interval(IntervalKind::kDocuments, mean, std::sqrt(g / (g - 1) * squares) / n,
                    static_cast<int64_t>(clusters.size()) - 1);
}

Interval bootstrap_interval(const std::vector<Observation>& observations, int64_t draws, std::uint64_t seed) {
  const std::vector<Cluster> clusters = clusters_of(observations);
  if (clusters.size() < 2 || draws < 2) return {};
  Draws draws_of(seed);
  std::vector<double> means;
  for (int64_t draw = 0; draw < draws; ++draw) {
    Cluster total;
    for (size_t i = 0; i < clusters.size(); ++i) {
      const Cluster& cluster = clusters[draws_of.below(clusters.size())];
      total.sum += cluster.sum;
      total.count += cluster.count;
    }
    means.push_back(total.sum / total.count);
  }
  std::sort(means.begin(), means.end());
  const double edge = (1 - kLevel) / 2;
  return {IntervalKind::kBootstrap, percentile(means, edge), percentile(means, 1 - edge), 0, 0};
}

Interval wilson_interval(double successes, int64_t n) {
  const double z2 = kNormalQuantile * kNormalQuantile;
  const auto count = static_cast<double>(n);
  const double p = successes / count;
  const double middle = (p + z2 / (2 * count)) / (1 + z2 / count);
  const double half = kNormalQuantile / (1 + z2 / count) * std::sqrt(p * (1 - p) / count + z2 / (4 * count * count));
  return {IntervalKind::kWilson, std::max(0.0, middle - half), std::min(1.0, middle + half), 0, 0};
}

Estimate estimate(const std::vector<Observation>& observations, bool share) {
  Estimate result;
  if (observations.empty()) return result;
  const std::vector<Cluster> clusters = clusters_of(observations);
  result.mean = mean_of(clusters);
  result.n_questions = static_cast<int64_t>(observations.size());
  result.n_documents = static_cast<int64_t>(clusters.size());
  double sum = 0;
  for (const Cluster& cluster : clusters) sum += cluster.sum;
  result.questions = share ? wilson_interval(sum, result.n_questions) : questions_t_interval(observations, result.mean);
  result.interval = clustered_interval(observations);
  result.bootstrap = bootstrap_interval(observations);
  // Equal shares in all documents leave no spread to estimate from; a width of 0 would claim certainty.
  constexpr double kNoSpread = 1e-12;
  if (!result.interval.exists() || (share && result.interval.standard_error < kNoSpread))
    result.interval = result.questions;
  return result;
}

}  // namespace kvc
