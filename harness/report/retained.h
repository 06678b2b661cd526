// How much of what the full cache knows is left: a ratio of two differences, each uncertain.
//   y method, f floor (no context), c ceiling (full cache), each by question; a = y - f, b = c - f
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/report/statistics.h"

namespace kvc {

struct RetainedObservation {
  std::string document;
  double gain = 0;   // y - f
  double range = 0;  // c - f
};

// The set of ratios that a t test does not reject. It is not an interval when the denominator may be 0: then it has no
// end, and saying so is the honest answer.
struct RatioInterval {
  bool computed = false;   // not with fewer than 2 documents (questions), nor where a = (ratio) b in every one of them
  bool unbounded = false;  // low and high mean nothing
  double low = 0, high = 0;
  int64_t degrees = 0;
};

struct Retained {
  double value = 0;         // sum a / sum b
  RatioInterval interval;   // the one to show: by document, below kFewDocuments documents by question
  RatioInterval questions;  // Fieller, questions as independent: what the documents asked say
  Interval bootstrap;       // percentiles by document, as a check; draws whose sum b is not positive are left out
  int64_t bootstrap_left_out = 0;
};

// {r : (mean a - r mean b)^2 <= t^2 (Vaa - 2 r Vab + r^2 Vbb)}, V the cluster-robust covariance of the two means as in
// clustered_interval, t of 0.975 with G - 1 degrees of freedom. Fieller, 1954. It is preferred to the bootstrap because
// the denominator of a weak model is near 0, where percentiles of ratios cover nothing in particular, while this set
// keeps its level and turns unbounded.
RatioInterval fieller_interval(const std::vector<RetainedObservation>& observations);

// Fieller's interval, clustered by document or by question as in Estimate. Where a = r b in every one of them (every
// answer as with the full cache, or as without the document) nothing spreads: r -+ u / low, u the end of
// exact_difference_interval for no changed answer and low the lower end of b's interval. Nothing where sum b is not
// above 0 or b cannot be told from 0: the ratio has no bound then.
std::optional<Retained> retained_of(const std::vector<RetainedObservation>& observations);

}  // namespace kvc
