// Which part of a common budget each head should have, from what every head loses at a few kept fractions.
//
// The parts p are chosen so that the mean over the targets a of
//   loss(p) = sum_h loss_h(p_h a H),   H heads, p summing to 1,
// is least. A part is a whole number of units, a unit being 1 / units_per_share of a head's uniform part 1 / H. The
// mean over the targets is a function f_h of the head's units; on the lower convex hull of f_h the unit that gains most
// is always the next one to give (greedy by marginal gain; B. Fox, "Discrete optimization via marginal analysis",
// 1966). For convex f_h the result is a minimum over all allocations in units. Otherwise at most one head ends inside a
// segment of its hull, and the loss is above the minimum by no more than that head's distance between f_h and its hull.
#pragma once

#include <cstdint>
#include <vector>

namespace kvc {

// What one head loses when it keeps a fraction of its entries.
struct LossCurve {
  std::vector<double> fractions;  // ascending, the first is 0, the last at most 1
  std::vector<double> losses;     // >= 0, one for each

  // Between measured fractions log loss is linear in log fraction (linear where one of the four is 0); beyond the last
  // it falls in a straight line to 0 at fraction 1, where everything is kept.
  double at(double fraction) const;
};

// The greatest convex function that is nowhere above `values`, at the same points 0, 1, 2, ...
std::vector<double> lower_hull(const std::vector<double>& values);

// losses[h][k]: of head h with k units; a head takes at most as many units as its list has values, less one. Returns
// the units of every head, `floor` at least, that sum to `total`. Equal gains go to the head with fewer units, then to
// the lower one. Throws Error(kInternal) when the heads cannot take so many. O(total log heads).
std::vector<int64_t> spend(const std::vector<std::vector<double>>& losses, int64_t floor, int64_t total);

struct AllocationRequest {
  std::vector<LossCurve> curves;  // one a head
  std::vector<double> targets;    // kept fractions of the whole cache, each in (0, 1]
  double floor_share = 0.25;      // least part of a head, in uniform parts, 0 to 1
  int64_t units_per_share = 20;
};

struct Allocation {
  std::vector<double> parts;  // one a head, summing to 1
  // Sum over heads at each target.
  std::vector<double> uniform_losses;
  std::vector<double> losses;
};

// Throws Error(kInternal) for a request without heads or targets or outside the ranges above.
Allocation allocate(const AllocationRequest& request);

}  // namespace kvc
