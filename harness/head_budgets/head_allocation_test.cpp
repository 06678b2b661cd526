// The choice of parts, against every other choice on cases small enough to try them all.
#include "harness/head_budgets/head_allocation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>

#include "harness/core/error.h"

namespace kvc {
namespace {

using ::testing::DoubleNear;
using ::testing::Pointwise;
using Losses = std::vector<std::vector<double>>;

double sum_at(const Losses& losses, const std::vector<int64_t>& units) {
  double sum = 0;
  for (size_t h = 0; h < units.size(); ++h) sum += losses[h].at(static_cast<size_t>(units[h]));
  return sum;
}

// The least sum over all ways to give `total` units, `floor` at least to each.
double best_of_all(const Losses& losses, int64_t floor, int64_t total) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<int64_t> units;
  const std::function<void(int64_t)> give = [&](int64_t left) {
    if (units.size() == losses.size()) {
      if (left == 0) best = std::min(best, sum_at(losses, units));
      return;
    }
    const auto most = static_cast<int64_t>(losses[units.size()].size()) - 1;
    for (int64_t k = floor; k <= std::min(most, left); ++k) {
      units.push_back(k);
      give(left - k);
      units.pop_back();
    }
  };
  give(total);
  return best;
}

std::vector<double> random_walk(std::mt19937_64& random, size_t n, bool convex) {
  std::vector<double> steps;
  for (size_t k = 1; k < n; ++k) steps.push_back(static_cast<double>(random() % 1000) / 100);
  if (convex) std::sort(steps.begin(), steps.end(), std::greater<>());
  std::vector<double> values = {std::accumulate(steps.begin(), steps.end(), 0.5)};
  for (const double step : steps) values.push_back(values.back() - step);
  return values;
}

TEST(LossCurve, PassesThroughItsPointsAndIsStraightInLogarithms) {
  const LossCurve curve{{0, 0.01, 0.04, 0.5}, {9, 4, 1, 0.2}};
  EXPECT_DOUBLE_EQ(curve.at(0), 9);
  EXPECT_DOUBLE_EQ(curve.at(0.005), 6.5);
  EXPECT_DOUBLE_EQ(curve.at(0.01), 4);
  EXPECT_NEAR(curve.at(0.02), 2, 1e-12);  // the geometric middle of 0.01 and 0.04
  EXPECT_DOUBLE_EQ(curve.at(0.5), 0.2);
  EXPECT_DOUBLE_EQ(curve.at(0.75), 0.1);
  EXPECT_DOUBLE_EQ(curve.at(1), 0);
  const LossCurve dead{{0, 0.1, 0.2}, {1, 0, 0}};
  EXPECT_DOUBLE_EQ(dead.at(0.05), 0.5);
  EXPECT_DOUBLE_EQ(dead.at(0.15), 0);
}

TEST(LowerHull, IsTheGreatestConvexFunctionBelow) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<double> values;
    for (size_t k = 0; k < 1 + random() % 9; ++k) values.push_back(static_cast<double>(random() % 20));
    const std::vector<double> hull = lower_hull(values);
    ASSERT_EQ(hull.size(), values.size());
    for (size_t k = 0; k < values.size(); ++k) {
      double least = values[k];  // over all chords across k
      for (size_t a = 0; a < k; ++a) {
        for (size_t b = k + 1; b < values.size(); ++b) {
          least = std::min(
              least, values[a] + (values[b] - values[a]) * static_cast<double>(k - a) / static_cast<double>(b - a));
        }
      }
      EXPECT_NEAR(hull[k], least, 1e-12);
    }
  }
}

TEST(Spend, IsTheBestOfAllWaysOnConvexCurves) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 100; ++round) {
    Losses losses;
    for (int h = 0; h < 4; ++h) losses.push_back(random_walk(random, 8, /*convex=*/true));
    const auto floor = static_cast<int64_t>(random() % 2);
    const std::vector<int64_t> units = spend(losses, floor, 12);
    EXPECT_EQ(std::accumulate(units.begin(), units.end(), int64_t{0}), 12);
    EXPECT_GE(*std::min_element(units.begin(), units.end()), floor);
    EXPECT_NEAR(sum_at(losses, units), best_of_all(losses, floor, 12), 1e-9);
  }
}

// Above the best by no more than one head's distance from its hull.
TEST(Spend, IsWithinItsBoundOnOtherCurves) {
  std::mt19937_64 random(6);
  int exact = 0;
  for (int round = 0; round < 100; ++round) {
    Losses losses;
    double gap = 0;
    for (int h = 0; h < 4; ++h) {
      losses.push_back(random_walk(random, 8, /*convex=*/false));
      const std::vector<double> hull = lower_hull(losses.back());
      for (size_t k = 0; k < hull.size(); ++k) gap = std::max(gap, losses.back()[k] - hull[k]);
    }
    const double found = sum_at(losses, spend(losses, 0, 12)), best = best_of_all(losses, 0, 12);
    EXPECT_GE(found, best - 1e-9);
    EXPECT_LE(found, best + gap + 1e-9);
    exact += found < best + 1e-9;
  }
  EXPECT_GT(exact, 10);  // the hull's corners are met often enough for this to be no accident
}

TEST(Spend, RefusesMoreThanTheHeadsTake) {
  EXPECT_THROW(spend({{1, 0}, {1, 0}}, 0, 3), Error);
  EXPECT_EQ(spend({{1, 0}, {1, 0}}, 0, 2), (std::vector<int64_t>{1, 1}));
}

TEST(Allocate, EqualHeadsShareAlike) {
  const LossCurve curve{{0, 0.01, 0.1, 1}, {1, 0.5, 0.1, 0}};
  const Allocation found = allocate({{curve, curve, curve}, {0.01, 0.1}});
  EXPECT_THAT(found.parts, Pointwise(DoubleNear(1e-12), {1.0 / 3, 1.0 / 3, 1.0 / 3}));
  EXPECT_THAT(found.losses, Pointwise(DoubleNear(1e-12), found.uniform_losses));
}

TEST(Allocate, WhatGainsNothingKeepsTheFloor) {
  const LossCurve steep{{0, 0.01, 0.1, 1}, {1, 0.5, 0.1, 0}}, flat{{0, 1}, {0, 0}};
  const Allocation found = allocate({{steep, flat, flat, flat}, {0.05}});
  EXPECT_THAT(found.parts, Pointwise(DoubleNear(1e-12), {0.8125, 0.0625, 0.0625, 0.0625}));
  EXPECT_NEAR(found.uniform_losses[0], steep.at(0.05), 1e-12);
  EXPECT_NEAR(found.losses[0], steep.at(0.1625), 1e-12);
}

// A head that keeps everything takes no more.
TEST(Allocate, NothingGoesWhereEverythingIsKept) {
  const LossCurve steep{{0, 1}, {100, 0}}, mild{{0, 1}, {1, 0}};
  const Allocation found = allocate({{steep, mild, mild, mild}, {0.5}, 0.0});
  EXPECT_NEAR(found.parts[0], 0.5, 1e-12);  // two uniform parts of 0.5
  EXPECT_NEAR(std::accumulate(found.parts.begin(), found.parts.end(), 0.0), 1, 1e-12);
}

TEST(Allocate, RefusesBrokenRequests) {
  const LossCurve fine{{0, 1}, {1, 0}};
  EXPECT_THROW(allocate({{}, {0.1}}), Error);
  EXPECT_THROW(allocate({{fine}, {}}), Error);
  EXPECT_THROW(allocate({{fine}, {1.5}}), Error);
  EXPECT_THROW(allocate({{fine}, {0.1}, 1.5}), Error);
  EXPECT_THROW(allocate({{{{0.1, 1}, {1, 0}}}, {0.1}}), Error);
  EXPECT_THROW(allocate({{{{0, 1}, {1, std::nan("")}}}, {0.1}}), Error);
}

}  // namespace
}  // namespace kvc
