#include "harness/head_budgets/head_allocation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <queue>

#include "harness/core/error.h"

namespace kvc {
namespace {

void check(const AllocationRequest& request) {
  bool fine = !request.curves.empty() && !request.targets.empty() && request.units_per_share >= 1 &&
              request.floor_share >= 0 && request.floor_share <= 1;
  for (const double target : request.targets) fine = fine && target > 0 && target <= 1;
  for (const LossCurve& curve : request.curves) {
    fine = fine && !curve.fractions.empty() && curve.fractions.size() == curve.losses.size() &&
           curve.fractions.front() == 0 && curve.fractions.back() <= 1 &&
           std::is_sorted(curve.fractions.begin(), curve.fractions.end());
    for (const double loss : curve.losses) fine = fine && std::isfinite(loss) && loss >= 0;
  }
  if (!fine) throw Error(ErrorKind::kInternal, "an allocation over broken curves, targets or shares", "allocate", "");
}

// What head h keeps of its entries with `share` uniform parts of a target.
double fraction_of(double share, double target) {
  return std::min(1.0, share * target);
}

double sum_of_losses(const AllocationRequest& request, const std::vector<double>& shares, double target) {
  double sum = 0;
  for (size_t h = 0; h < shares.size(); ++h) sum += request.curves[h].at(fraction_of(shares[h], target));
  return sum;
}

}  // namespace

double LossCurve::at(double fraction) const {
  const auto above = std::upper_bound(fractions.begin(), fractions.end(), fraction);
  if (above == fractions.begin()) return losses.front();
  if (above == fractions.end()) {
    const double left = 1 - fractions.back();
    return left > 0 ? losses.back() * std::max(0.0, 1 - fraction) / left : losses.back();
  }
  const auto i = static_cast<size_t>(above - fractions.begin()) - 1;
  const double a = fractions[i], b = fractions[i + 1], from = losses[i], to = losses[i + 1];
  if (a > 0 && from > 0 && to > 0) return from * std::pow(to / from, std::log(fraction / a) / std::log(b / a));
  return from + (to - from) * (fraction - a) / (b - a);
}

std::vector<double> lower_hull(const std::vector<double>& values) {
  std::vector<size_t> corners;
  for (size_t k = 0; k < values.size(); ++k) {
    while (corners.size() >= 2) {
      const size_t a = corners[corners.size() - 2], b = corners.back();
      const double to_b = (values[b] - values[a]) * static_cast<double>(k - a);
      const double to_k = (values[k] - values[a]) * static_cast<double>(b - a);
      if (to_b < to_k) break;  // b lies below the line from a to k
      corners.pop_back();
    }
    corners.push_back(k);
  }
  std::vector<double> hull = values;
  for (size_t c = 0; c + 1 < corners.size(); ++c) {
    const size_t a = corners[c], b = corners[c + 1];
    for (size_t k = a + 1; k < b; ++k) {
      hull[k] = values[a] + (values[b] - values[a]) * static_cast<double>(k - a) / static_cast<double>(b - a);
    }
  }
  return hull;
}

std::vector<int64_t> spend(const std::vector<std::vector<double>>& losses, int64_t floor, int64_t total) {
  struct Offer {
    double gain;
    int64_t units;
    size_t head;
    bool operator<(const Offer& other) const {  // of two, the smaller comes later
      if (gain != other.gain) return gain < other.gain;
      if (units != other.units) return units > other.units;
      return head > other.head;
    }
  };
  std::vector<std::vector<double>> hulls;
  std::vector<int64_t> units(losses.size(), floor);
  std::priority_queue<Offer> offers;
  const auto offer = [&](size_t h) {
    const auto next = static_cast<size_t>(units[h]) + 1;
    if (next < hulls[h].size()) offers.push({hulls[h][next - 1] - hulls[h][next], units[h], h});
  };
  for (size_t h = 0; h < losses.size(); ++h) {
    hulls.push_back(lower_hull({losses[h].begin() + floor, losses[h].end()}));
    hulls.back().insert(hulls.back().begin(), static_cast<size_t>(floor), 0.0);  // never looked at
    offer(h);
  }
  for (int64_t left = total - floor * static_cast<int64_t>(losses.size()); left > 0; --left) {
    if (offers.empty()) throw Error(ErrorKind::kInternal, "more units than the heads can take", "spend", "");
    const size_t h = offers.top().head;
    offers.pop();
    ++units[h];
    offer(h);
  }
  return units;
}

Allocation allocate(const AllocationRequest& request) {
  check(request);
  const auto n_heads = static_cast<int64_t>(request.curves.size());
  const double per_share = static_cast<double>(request.units_per_share);
  const double least = *std::min_element(request.targets.begin(), request.targets.end());
  const int64_t total = request.units_per_share * n_heads;
  // With so many units a head keeps everything at every target.
  const int64_t most = std::min(total, static_cast<int64_t>(std::ceil(per_share / least)));
  std::vector<std::vector<double>> losses;
  for (const LossCurve& curve : request.curves) {
    losses.emplace_back();
    for (int64_t k = 0; k <= most; ++k) {
      double sum = 0;
      for (const double target : request.targets)
        sum += curve.at(fraction_of(static_cast<double>(k) / per_share, target));
      losses.back().push_back(sum / static_cast<double>(request.targets.size()));
    }
  }
  const auto floor = static_cast<int64_t>(std::llround(request.floor_share * per_share));
  const std::vector<int64_t> units = spend(losses, floor, total);

  Allocation allocation;
  std::vector<double> shares;
  for (const int64_t k : units) {
    allocation.parts.push_back(static_cast<double>(k) / static_cast<double>(total));
    shares.push_back(static_cast<double>(k) / per_share);
  }
  for (const double target : request.targets) {
    allocation.uniform_losses.push_back(sum_of_losses(request, std::vector<double>(shares.size(), 1.0), target));
    allocation.losses.push_back(sum_of_losses(request, shares, target));
  }
  return allocation;
}

}  // namespace kvc
