#include "harness/report/retained.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "harness/report/resampling.h"

namespace kvc {
namespace {

struct RetainedCluster {
  double gain = 0, range = 0, count = 0;
};

std::vector<RetainedCluster> retained_clusters(const std::vector<RetainedObservation>& observations) {
  std::map<std::string, RetainedCluster> by_document;
  const std::string* document = nullptr;  // observations mostly come document by document
  RetainedCluster* cluster = nullptr;
  for (const RetainedObservation& o : observations) {
    if (document == nullptr || *document != o.document) {
      document = &o.document;
      cluster = &by_document[o.document];
    }
    cluster->gain += o.gain;
    cluster->range += o.range;
    cluster->count += 1;
  }
  std::vector<RetainedCluster> list;
  for (const auto& [name, total] : by_document) list.push_back(total);
  return list;
}

RetainedCluster total_of(const std::vector<RetainedCluster>& clusters) {
  RetainedCluster total;
  for (const RetainedCluster& cluster : clusters) {
    total.gain += cluster.gain;
    total.range += cluster.range;
    total.count += cluster.count;
  }
  return total;
}

RatioInterval fieller(const std::vector<RetainedCluster>& clusters) {
  RatioInterval result;
  if (clusters.size() < 2) return result;
  result.degrees = static_cast<int64_t>(clusters.size()) - 1;
  const RetainedCluster total = total_of(clusters);
  const double a = total.gain / total.count;
  const double b = total.range / total.count;
  double aa = 0, ab = 0, bb = 0;
  for (const RetainedCluster& cluster : clusters) {
    const double gain = cluster.gain - a * cluster.count;
    const double range = cluster.range - b * cluster.count;
    aa += gain * gain;
    ab += gain * range;
    bb += range * range;
  }
  const double ratio = a / b;
  // Gains that are the ratio times the range in every cluster leave nothing to estimate a spread from.
  if (aa - 2 * ratio * ab + ratio * ratio * bb <= 1e-12 * (aa + ratio * ratio * bb)) return result;
  result.computed = true;
  const auto g = static_cast<double>(clusters.size());
  const double t = student_t_quantile(0.5 + kLevel / 2, g - 1);
  const double scale = t * t * g / (g - 1) / (total.count * total.count);
  const double square = b * b - scale * bb;  // square r^2 - 2 linear r + constant <= 0
  const double linear = a * b - scale * ab;
  const double constant = a * a - scale * aa;
  result.unbounded = square <= 1e-14 * b * b;
  if (result.unbounded) return result;
  const double root = std::sqrt(std::max(0.0, linear * linear - square * constant));
  result.low = (linear - root) / square;
  result.high = (linear + root) / square;
  return result;
}

// Every cluster has a = ratio b: what is uncertain is whether another answer would have changed.
RatioInterval without_spread(const std::vector<RetainedObservation>& observations, double ratio, bool by_question) {
  std::vector<Observation> ranges;
  for (const RetainedObservation& o : observations) ranges.push_back({o.document, o.range});
  const Estimate range = estimate(ranges, MetricScale::kShareDifference);
  const Interval& interval = by_question ? range.questions : range.interval;
  RatioInterval result;
  if (!interval.exists() || !(interval.low > 0)) return result;
  const Interval same = exact_difference_interval(0, 0, static_cast<int64_t>(observations.size()), true);
  result.computed = true;
  result.low = ratio + same.low / interval.low;
  result.high = ratio + same.high / interval.low;
  result.degrees = interval.degrees;
  return result;
}

void bootstrap(const std::vector<RetainedCluster>& clusters, Retained& retained) {
  if (clusters.size() < 2) return;
  std::vector<double> gains, ranges, ratios;
  for (const RetainedCluster& cluster : clusters) {
    gains.push_back(cluster.gain);
    ranges.push_back(cluster.range);
  }
  const Resamples& resamples = resamples_of(clusters.size(), kBootstrapDraws, kBootstrapSeed);
  gains = resamples.sums(gains);
  ranges = resamples.sums(ranges);
  for (size_t draw = 0; draw < gains.size(); ++draw) {
    if (ranges[draw] > 0) ratios.push_back(gains[draw] / ranges[draw]);
  }
  retained.bootstrap_left_out = kBootstrapDraws - static_cast<int64_t>(ratios.size());
  if (ratios.empty()) return;
  const double edge = (1 - kLevel) / 2;
  retained.bootstrap = {IntervalKind::kBootstrap, percentile(ratios, edge), percentile(ratios, 1 - edge), 0, 0};
}

}  // namespace

RatioInterval fieller_interval(const std::vector<RetainedObservation>& observations) {
  return fieller(retained_clusters(observations));
}

std::optional<Retained> retained_of(const std::vector<RetainedObservation>& observations) {
  const std::vector<RetainedCluster> clusters = retained_clusters(observations);
  const RetainedCluster total = total_of(clusters);
  if (!(total.range > 0)) return std::nullopt;
  Retained retained;
  retained.value = total.gain / total.range;
  std::vector<RetainedCluster> questions;
  for (const RetainedObservation& o : observations) questions.push_back({o.gain, o.range, 1});
  retained.questions = fieller(questions);
  const bool few = static_cast<int64_t>(clusters.size()) < kFewDocuments;
  retained.interval = few ? retained.questions : fieller(clusters);
  if (!retained.interval.computed) retained.interval = retained.questions;
  if (!retained.interval.computed) retained.interval = without_spread(observations, retained.value, few);
  if (!retained.interval.computed || retained.interval.unbounded) return std::nullopt;
  bootstrap(clusters, retained);
  return retained;
}

}  // namespace kvc
