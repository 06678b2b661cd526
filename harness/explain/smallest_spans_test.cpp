#include "harness/explain/smallest_spans.h"

#include <gtest/gtest.h>

#include <random>

namespace kvc {
namespace {

// Has the effect when all of `wanted` is there.
std::function<bool(const TokenSpans&)> all_of(const std::vector<int64_t>& wanted) {
  return [wanted](const TokenSpans& spans) {
    return std::all_of(wanted.begin(), wanted.end(), [&](int64_t token) { return holds(spans, token); });
  };
}

SmallestSpans find(const TokenSpan& whole, const std::vector<int64_t>& wanted, int64_t max_tests = 10000) {
  return smallest_spans(whole, std::vector<double>(static_cast<size_t>(whole.size()), 1.0), all_of(wanted), max_tests);
}

TEST(SmallestSpans, OneSpanAcrossTheMiddle) {
  const SmallestSpans found = find({10, 610}, {308, 309, 310, 311});
  EXPECT_EQ(found.spans, (TokenSpans{{308, 312}}));
  EXPECT_TRUE(found.finished);
  EXPECT_LT(found.n_tests, 60);
}

TEST(SmallestSpans, SeveralSpansOfWhichNoHalfIsEnough) {
  EXPECT_EQ(find({0, 500}, {3, 4, 250, 499}).spans, (TokenSpans{{3, 5}, {250, 251}, {499, 500}}));
  EXPECT_EQ(find({0, 1}, {0}).spans, (TokenSpans{{0, 1}}));
  EXPECT_EQ(find({0, 3}, {0, 1, 2}).spans, (TokenSpans{{0, 3}}));
}

TEST(SmallestSpans, AnyMonotoneEffectIsFoundExactly) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const int64_t n = 1 + static_cast<int64_t>(random() % 300);
    std::vector<int64_t> wanted;
    for (size_t i = 0; i < 1 + random() % 6; ++i) wanted.push_back(100 + static_cast<int64_t>(random() % n));
    const SmallestSpans found = find({100, 100 + n}, wanted);
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    EXPECT_EQ(n_tokens(found.spans), static_cast<int64_t>(wanted.size()));
    EXPECT_TRUE(all_of(wanted)(found.spans));
  }
}

// Of two texts that both do, the one of more weight stays.
TEST(SmallestSpans, KeepsTheWeightier) {
  std::vector<double> weights(64, 1.0);
  weights[50] = 9;
  const auto either = [](const TokenSpans& spans) { return holds(spans, 7) || holds(spans, 50); };
  EXPECT_EQ(smallest_spans({0, 64}, weights, either, 1000).spans, (TokenSpans{{50, 51}}));
  weights[50] = 1;
  weights[7] = 9;
  EXPECT_EQ(smallest_spans({0, 64}, weights, either, 1000).spans, (TokenSpans{{7, 8}}));
}

TEST(SmallestSpans, SaysWhenItStopsEarly) {
  const SmallestSpans found = find({0, 4096}, {5, 4000}, 7);
  EXPECT_FALSE(found.finished);
  EXPECT_EQ(found.n_tests, 7);
  EXPECT_TRUE(all_of({5, 4000})(found.spans));
}

TEST(SmallestSpans, Arithmetic) {
  const TokenSpans spans = {{2, 5}, {8, 9}};
  EXPECT_EQ(n_tokens(spans), 4);
  EXPECT_EQ(without(spans, {3, 4}), (TokenSpans{{2, 3}, {4, 5}, {8, 9}}));
  EXPECT_EQ(without(spans, {0, 99}), TokenSpans{});
  EXPECT_EQ(complement(spans, {0, 10}), (TokenSpans{{0, 2}, {5, 8}, {9, 10}}));
}

}  // namespace
}  // namespace kvc
