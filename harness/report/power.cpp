#include "harness/report/power.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/non_central_t.hpp>
#include <cmath>

namespace kvc {
namespace {

// The most losses of `changed` answers with which wins decide; -1: none do.
int64_t critical_losses(int64_t changed, double level) {
  int64_t low = -1, high = changed / 2;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (mcnemar_exact(changed - middle, middle) <= level) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// The smallest x in (0, most] with power(x) >= kPower, to a thousandth of itself; power must rise with x.
std::optional<double> smallest(double most, const auto& power) {
  if (!(power(most) >= kPower)) return std::nullopt;
  double low = 0, high = most;
  while (high - low > 1e-3 * high) {
    const double middle = (low + high) / 2;
    (power(middle) >= kPower ? high : low) = middle;
  }
  return high;
}

// Clustered variance of the mean difference of shares over the variance of independent questions, at least 1.
double design_effect(const Pair& pair) {
  const Estimate& difference = pair.difference;
  const auto n = static_cast<double>(difference.n_questions);
  const double share = static_cast<double>(pair.wins + pair.losses) / n;
  const double independent = (share - difference.mean * difference.mean) / n;
  const double error = difference.interval.standard_error;
  return independent > kNoSpread ? std::max(1.0, error * error / independent) : 1;
}

double share_power(const Pair& pair, double difference, double effect, double level) {
  const Estimate& estimate = pair.difference;
  const auto n = static_cast<double>(estimate.n_questions);
  const double changed = std::max(static_cast<double>(pair.wins + pair.losses) / n, difference);
  double missed = 0;
  if (pair.p_mcnemar) missed += 1 - mcnemar_power(estimate.n_questions, changed, difference, level);
  if (pair.test == PairTest::kMcNemar) return 1 - missed;
  const double error = std::sqrt(effect * std::max(changed - difference * difference, kNoSpread) / n);
  return 1 - missed - (1 - t_power(difference / error, static_cast<double>(estimate.n_documents - 1), level));
}

}  // namespace

double t_power(double effect, double degrees, double level) {
  if (effect > 30) return 1;  // at any number of degrees that is tested, and where the noncentral series end
  const double bound = student_t_quantile(1 - level / 2, degrees);
  const boost::math::non_central_t t(degrees, effect);
  return boost::math::cdf(boost::math::complement(t, bound)) + boost::math::cdf(t, -bound);
}

double mcnemar_power(int64_t n, double changed, double difference, double level) {
  if (changed <= 0) return 0;
  changed = std::min(changed, 1.0);
  const double win = std::clamp((changed + difference) / (2 * changed), 0.0, 1.0);
  const boost::math::binomial number(static_cast<double>(n), changed);
  const double mean = static_cast<double>(n) * changed;
  const double spread = std::sqrt(std::max(mean * (1 - changed), 0.0));
  const auto from = static_cast<int64_t>(std::max(0.0, std::floor(mean - 6 * spread - 3)));
  const auto to = static_cast<int64_t>(std::min(static_cast<double>(n), std::ceil(mean + 6 * spread + 3)));
  double power = 0;
  for (int64_t m = from; m <= to; ++m) {
    const int64_t critical = critical_losses(m, level);
    if (critical < 0) continue;
    const boost::math::binomial losses(static_cast<double>(m), 1 - win), wins(static_cast<double>(m), win);
    const auto c = static_cast<double>(critical);
    power += boost::math::pdf(number, static_cast<double>(m)) * (boost::math::cdf(losses, c) + boost::math::cdf(wins, c));
  }
  return std::min(1.0, power);
}

std::optional<double> detectable_effect(const Pair& pair, double level) {
  switch (pair.test) {
    case PairTest::kMcNemar:
    case PairTest::kShares: {
      if (pair.test == PairTest::kMcNemar && !pair.p_mcnemar) return std::nullopt;  // sizes of changes are not modelled
      const double effect = pair.test == PairTest::kShares ? design_effect(pair) : 1;
      return smallest(1, [&](double d) { return share_power(pair, d, effect, level); });
    }
    case PairTest::kLogRatio: {
      const Interval& interval = pair.ratio_interval;
      if (interval.standard_error < kNoSpread) return std::nullopt;
      const auto found = smallest(
          30, [&](double d) { return t_power(d, static_cast<double>(interval.degrees), level); });
      return found ? std::optional(std::exp(*found * interval.standard_error)) : std::nullopt;
    }
    case PairTest::kReal: {
      const Interval& interval = pair.difference.interval;
      if (interval.standard_error < kNoSpread) return std::nullopt;
      const auto found = smallest(
          30, [&](double d) { return t_power(d, static_cast<double>(interval.degrees), level); });
      return found ? std::optional(*found * interval.standard_error) : std::nullopt;
    }
    case PairTest::kSignFlip:
    case PairTest::kTooFew:
      break;
  }
  return std::nullopt;
}

}  // namespace kvc
