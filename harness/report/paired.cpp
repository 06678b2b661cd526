#include "harness/report/paired.h"

#include <algorithm>
#include <boost/math/special_functions/beta.hpp>
#include <cmath>
#include <map>
#include <numeric>

#include "harness/report/resampling.h"

namespace kvc {
namespace {

struct DocumentMeans {
  double first = 0, second = 0, count = 0;
};

std::vector<DocumentMeans> documents_of(const std::vector<PairedValues>& values) {
  std::map<std::string, DocumentMeans> by_document;
  const std::string* name = nullptr;  // values mostly come document by document
  DocumentMeans* document = nullptr;
  for (const PairedValues& value : values) {
    if (name == nullptr || *name != value.document) {
      name = &value.document;
      document = &by_document[value.document];
    }
    document->first += value.first;
    document->second += value.second;
    document->count += 1;
  }
  std::vector<DocumentMeans> list;
  for (const auto& [key, means] : by_document) {
    list.push_back(means);
    list.back().first /= means.count;
    list.back().second /= means.count;
  }
  return list;
}

void compare_shares(const std::vector<PairedValues>& values, const std::vector<Observation>& differences, Pair& pair) {
  const auto is_answer = [](double value) { return value == 0 || value == 1; };
  const bool binary = std::all_of(values.begin(), values.end(), [&](const PairedValues& value) {
    return is_answer(value.first) && is_answer(value.second);
  });
  const bool few = pair.difference.n_documents < kFewDocuments;
  if (binary) {
    pair.p_mcnemar = mcnemar_exact(pair.wins, pair.losses);
  } else if (few || pair.wins + pair.losses <= static_cast<int64_t>(kExactFlips)) {
    std::vector<double> changes;
    for (const Observation& o : differences) changes.push_back(o.value);
    pair.p_sign_flip = sign_flip_test(changes);
  }
  if (few) {
    pair.test = PairTest::kMcNemar;
    pair.p = binary ? pair.p_mcnemar : pair.p_sign_flip;
    return;
  }
  pair.p_documents = t_test(pair.difference.mean, clustered_interval(differences));
  pair.test = PairTest::kShares;
  pair.p = std::max({*pair.p_documents, pair.p_mcnemar.value_or(0), pair.p_sign_flip.value_or(0)});
}

void compare_positive(const std::vector<PairedValues>& values, Pair& pair) {
  if (pair.difference.n_documents < kFewDocuments) return;
  const std::vector<DocumentMeans> documents = documents_of(values);
  if (std::any_of(documents.begin(), documents.end(),
                  [](const DocumentMeans& d) { return !(d.first > 0) || !(d.second > 0); })) {
    std::vector<double> differences;
    for (const DocumentMeans& d : documents) differences.push_back((d.first - d.second) * d.count);
    pair.p_sign_flip = sign_flip_test(differences);
    pair.test = PairTest::kSignFlip;
    pair.p = pair.p_sign_flip;
    return;
  }
  std::vector<Observation> logs;
  for (size_t g = 0; g < documents.size(); ++g)
    logs.push_back({std::to_string(g), std::log(documents[g].first / documents[g].second)});
  const Estimate log_ratio = estimate(logs, MetricScale::kReal);
  pair.ratio = std::exp(log_ratio.mean);
  pair.ratio_interval = log_ratio.interval;
  pair.ratio_interval.kind = IntervalKind::kDocumentsLog;
  pair.ratio_interval.low = std::exp(log_ratio.interval.low);
  pair.ratio_interval.high = std::exp(log_ratio.interval.high);
  pair.p_documents = t_test(log_ratio.mean, log_ratio.interval);
  pair.test = PairTest::kLogRatio;
  pair.p = pair.p_documents;
}

}  // namespace

std::string_view test_name(PairTest test) {
  switch (test) {
    case PairTest::kMcNemar:
      return "mcnemar";
    case PairTest::kShares:
      return "documents_t_and_mcnemar";
    case PairTest::kLogRatio:
      return "documents_log_ratio";
    case PairTest::kSignFlip:
      return "documents_sign_flip";
    case PairTest::kReal:
      return "documents_t";
    case PairTest::kTooFew:
      break;
  }
  return "too few documents";
}

double mcnemar_exact(int64_t wins, int64_t losses) {
  const int64_t n = wins + losses;
  const int64_t fewer = std::min(wins, losses);
  if (n == 0 || wins == losses) return 1;
  // P(X <= fewer) of binomial(n, 1/2) is I_{1/2}(n - fewer, fewer + 1).
  return std::min(1.0, 2 * boost::math::ibeta(static_cast<double>(n - fewer), static_cast<double>(fewer + 1), 0.5));
}

double sign_flip_test(const std::vector<double>& values) {
  std::vector<double> changed;
  double seen = 0;
  for (const double value : values) {
    if (std::abs(value) <= kNoSpread) continue;
    changed.push_back(value);
    seen += value;
  }
  if (changed.empty()) return 1;
  const auto sum_of = [&](auto&& minus) {
    double sum = 0;
    for (size_t i = 0; i < changed.size(); ++i) sum += minus(i) ? -changed[i] : changed[i];
    return std::abs(sum);
  };
  const double bound = std::abs(seen) * (1 - 1e-12);  // sums that differ by round-off are equal
  int64_t reached = 0;
  if (changed.size() <= kExactFlips) {
    const std::uint64_t ways = std::uint64_t{1} << changed.size();
    for (std::uint64_t way = 0; way < ways; ++way)
      reached += sum_of([&](size_t i) { return (way >> i & 1) != 0; }) >= bound;
    return static_cast<double>(reached) / static_cast<double>(ways);
  }
  Draws draws(kBootstrapSeed);
  for (int64_t draw = 0; draw < kFlipDraws; ++draw)
    reached += sum_of([&](size_t) { return draws.below(2) != 0; }) >= bound;
  return static_cast<double>(reached + 1) / static_cast<double>(kFlipDraws + 1);
}

namespace {

std::vector<size_t> order_of(const std::vector<double>& p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] < p[b]; });
  return order;
}

}  // namespace

std::vector<double> holm(const std::vector<double>& p) {
  const std::vector<size_t> order = order_of(p);
  std::vector<double> adjusted(p.size());
  double largest = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    largest = std::max(largest, static_cast<double>(p.size() - i) * p[order[i]]);
    adjusted[order[i]] = std::min(1.0, largest);
  }
  return adjusted;
}

std::vector<double> benjamini_hochberg(const std::vector<double>& p) {
  const std::vector<size_t> order = order_of(p);
  std::vector<double> adjusted(p.size());
  double least = 1;
  for (size_t i = order.size(); i-- > 0;) {
    least = std::min(least, static_cast<double>(p.size()) * p[order[i]] / static_cast<double>(i + 1));
    adjusted[order[i]] = least;
  }
  return adjusted;
}

std::optional<double> t_test(double mean, const Interval& interval) {
  if (interval.kind != IntervalKind::kDocuments) return std::nullopt;
  if (interval.standard_error < kNoSpread)
    return std::abs(mean) < kNoSpread ? 1.0 : std::exp2(-static_cast<double>(interval.degrees));
  return 2 * student_t_cdf(-std::abs(mean / interval.standard_error), static_cast<double>(interval.degrees));
}

Pair compare_pair(const std::vector<PairedValues>& values, MetricScale scale) {
  Pair pair;
  std::vector<Observation> differences;
  for (const PairedValues& value : values) {
    const double size = std::max({1.0, std::abs(value.first), std::abs(value.second)});
    double difference = value.first - value.second;
    if (std::abs(difference) <= kNoSpread * size) difference = 0;
    ++(difference > 0 ? pair.wins : difference < 0 ? pair.losses : pair.ties);
    differences.push_back({value.document, difference});
    pair.mean_square += difference * difference / static_cast<double>(values.size());
  }
  pair.difference =
      estimate(differences, scale == MetricScale::kShare ? MetricScale::kShareDifference : MetricScale::kReal);
  if (values.empty()) return pair;
  if (scale == MetricScale::kShare) {
    compare_shares(values, differences, pair);
  } else if (scale == MetricScale::kPositive) {
    compare_positive(values, pair);
  } else if (pair.difference.n_documents >= kFewDocuments) {
    pair.p_documents = t_test(pair.difference.mean, pair.difference.interval);
    pair.test = PairTest::kReal;
    pair.p = pair.p_documents;
  }
  return pair;
}

double design_effect(const Pair& pair) {
  const Estimate& difference = pair.difference;
  if (difference.interval.kind != IntervalKind::kDocuments) return 1;
  const double independent =
      (pair.mean_square - difference.mean * difference.mean) / static_cast<double>(difference.n_questions);
  const double error = difference.interval.standard_error;
  return independent > kNoSpread ? std::max(1.0, error * error / independent) : 1;
}

std::optional<double> equivalence_test(const Pair& pair, MetricScale scale, double margin) {
  const Estimate& difference = pair.difference;
  const Interval& interval = difference.interval;
  const bool share = scale == MetricScale::kShare;
  if (!(margin > 0) || difference.n_questions == 0) return std::nullopt;
  double p = 0;
  if (interval.kind == IntervalKind::kDocuments || (share && interval.kind == IntervalKind::kQuestionsT)) {
    double error = std::max(interval.standard_error, kNoSpread);
    if (share) {
      const double square = pair.p_mcnemar ? std::max(pair.mean_square, margin) : pair.mean_square;
      const double variance = std::max(square - margin * margin, 0.0);
      error = std::max(error, std::sqrt(design_effect(pair) * variance / static_cast<double>(difference.n_questions)));
    }
    const double t = (std::abs(difference.mean) - margin) / error;
    p = student_t_cdf(t, static_cast<double>(interval.degrees));
  } else if (interval.kind != IntervalKind::kExact) {
    return std::nullopt;
  }
  if (!share) return p;
  if (margin >= 1) return 0;
  // A difference of `margin` changes at least that share of the answers: P(binomial(n, margin) <= net change).
  const auto net = static_cast<double>(std::abs(pair.wins - pair.losses));
  const auto n = static_cast<double>(difference.n_questions);
  return net >= n ? 1 : std::max(p, boost::math::ibeta(n - net, net + 1, 1 - margin));
}

std::optional<double> below_margin_test(const Estimate& estimate, double margin) {
  if (!(margin > 0) || estimate.n_documents < kFewDocuments) return std::nullopt;
  if (estimate.interval.kind != IntervalKind::kDocumentsLog) return std::nullopt;
  const double distance = std::log(estimate.mean / margin);
  if (estimate.interval.standard_error < kNoSpread) return distance < 0 ? 0 : 1;
  return student_t_cdf(distance / estimate.interval.standard_error, static_cast<double>(estimate.interval.degrees));
}

}  // namespace kvc
