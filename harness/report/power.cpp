#include "harness/report/power.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/non_central_t.hpp>
#include <cmath>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace kvc {
namespace {

// By number of changed answers, 0 to n: the most losses with which wins decide; -1: none do. Kept for the next pair of
// the family, which mostly has as many questions.
std::vector<int64_t> critical_losses(int64_t n, double level) {
  thread_local std::map<std::pair<int64_t, double>, std::vector<int64_t>> known;
  if (known.size() > 8) known.clear();
  std::vector<int64_t>& critical = known[{n, level}];
  if (!critical.empty()) return critical;
  critical = {-1};
  for (int64_t m = 1; m <= n; ++m) {
    const int64_t next = critical.back() + 1;  // one more changed answer allows at most one more loss
    const bool more = 2 * next < m && mcnemar_exact(m - next, next) <= level;
    critical.push_back(more ? next : critical.back());
  }
  return critical;
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

// P(at most c of m trials succeed), each with probability p, 0 < p < 1; goes along m and c at the cost of a product.
class BinomialTail {
 public:
  BinomialTail(int64_t m, int64_t c, double p)
      : m_(static_cast<double>(m)),
        c_(static_cast<double>(c)),
        p_(p),
        at_most_(boost::math::cdf(boost::math::binomial(m_, p), c_)),
        exactly_(boost::math::pdf(boost::math::binomial(m_, p), c_)) {}
  void go_to(int64_t m, int64_t c) {
    for (; m_ < static_cast<double>(m); ++m_) {
      at_most_ -= p_ * exactly_;  // c successes in m trials, and one more
      exactly_ *= (m_ + 1) / (m_ + 1 - c_) * (1 - p_);
    }
    for (; c_ < static_cast<double>(c); ++c_) {
      exactly_ *= (m_ - c_) / (c_ + 1) * (p_ / (1 - p_));
      at_most_ += exactly_;
    }
  }
  double at_most() const { return at_most_; }

 private:
  double m_, c_, p_, at_most_, exactly_;
};

double mcnemar_power_of(const std::vector<int64_t>& critical, double changed, double difference) {
  if (changed <= 0) return 0;
  changed = std::min(changed, 1.0);
  const auto n = static_cast<double>(critical.size() - 1);
  const double win = std::clamp((changed + difference) / (2 * changed), 0.0, 1.0);
  const boost::math::binomial number(n, changed);
  const double mean = n * changed;
  const double spread = std::sqrt(std::max(mean * (1 - changed), 0.0));
  const auto from = static_cast<int64_t>(std::max(0.0, std::floor(mean - 6 * spread - 3)));
  const auto to = static_cast<int64_t>(std::min(n, std::ceil(mean + 6 * spread + 3)));
  double power = 0, exactly = boost::math::pdf(number, static_cast<double>(from));  // exactly m answers change
  std::optional<BinomialTail> losses, wins;
  for (int64_t m = from; m <= to; ++m) {
    if (m > from && changed < 1) {
      exactly *= (n - static_cast<double>(m) + 1) / static_cast<double>(m) * (changed / (1 - changed));
    } else if (m > from) {
      exactly = boost::math::pdf(number, static_cast<double>(m));
    }
    const int64_t c = critical[static_cast<size_t>(m)];
    if (c < 0) continue;
    double decided = 1;  // where every changed answer is a win
    if (win < 1) {
      if (!losses) losses.emplace(m, c, 1 - win);
      if (!wins) wins.emplace(m, c, win);
      losses->go_to(m, c);
      wins->go_to(m, c);
      decided = losses->at_most() + wins->at_most();
    }
    power += exactly * decided;
  }
  return std::min(1.0, power);
}

double share_power(const Pair& pair, const std::vector<int64_t>& critical, double difference, double level) {
  const Estimate& estimate = pair.difference;
  const double changed = std::max(pair.mean_square, difference);
  double missed = 0;
  if (pair.p_mcnemar) missed += 1 - mcnemar_power_of(critical, changed, difference);
  if (pair.test == PairTest::kMcNemar) return 1 - missed;
  const double variance = std::max(changed - difference * difference, kNoSpread);
  const double error = std::sqrt(design_effect(pair) * variance / static_cast<double>(estimate.n_questions));
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
  return mcnemar_power_of(critical_losses(n, level), changed, difference);
}

std::optional<double> detectable_effect(const Pair& pair, double level) {
  switch (pair.test) {
    case PairTest::kMcNemar:
    case PairTest::kShares: {
      if (pair.test == PairTest::kMcNemar && !pair.p_mcnemar) return std::nullopt;  // sizes of changes are not modelled
      const std::vector<int64_t> critical = critical_losses(pair.difference.n_questions, level);
      return smallest(1, [&](double d) { return share_power(pair, critical, d, level); });
    }
    case PairTest::kLogRatio: {
      const Interval& interval = pair.ratio_interval;
      if (interval.standard_error < kNoSpread) return std::nullopt;
      const auto found =
          smallest(30, [&](double d) { return t_power(d, static_cast<double>(interval.degrees), level); });
      return found ? std::optional(std::exp(*found * interval.standard_error)) : std::nullopt;
    }
    case PairTest::kReal: {
      const Interval& interval = pair.difference.interval;
      if (interval.standard_error < kNoSpread) return std::nullopt;
      const auto found =
          smallest(30, [&](double d) { return t_power(d, static_cast<double>(interval.degrees), level); });
      return found ? std::optional(*found * interval.standard_error) : std::nullopt;
    }
    case PairTest::kSignFlip:
    case PairTest::kTooFew:
      break;
  }
  return std::nullopt;
}

}  // namespace kvc
