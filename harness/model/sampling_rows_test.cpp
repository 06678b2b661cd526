// Choosing on the device against choosing on the host, row by row: the same operations of LibTorch, run on the CPU
// here.
#include "harness/model/sampling_rows.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/core/error.h"
#include "harness/model/sampling.h"

namespace kvc {
namespace {

std::span<const float> row_of(const at::Tensor& rows, int64_t row) {
  return {rows.const_data_ptr<float>() + row * rows.size(1), static_cast<size_t>(rows.size(1))};
}

// Rounded so far that many logits are equal.
at::Tensor rows_with_ties(int64_t n, int64_t vocab, double steps) {
  at::manual_seed(3);
  return at::randn({n, vocab}).mul(steps).round().div(steps);
}

TEST(SamplingRows, GreedyIsTheFirstOfTheHighest) {
  for (const double steps : {1.0, 1000.0}) {
    const at::Tensor logits = rows_with_ties(20, 500, steps);
    const std::vector<int64_t> tokens = greedy_tokens(logits);
    ASSERT_EQ(tokens.size(), 20U);
    for (int64_t row = 0; row < 20; ++row) {
      EXPECT_EQ(tokens[static_cast<size_t>(row)], greedy_token(row_of(logits, row))) << "row " << row;
    }
  }
  EXPECT_TRUE(greedy_tokens(at::empty({0, 7})).empty());
}

TEST(SamplingRows, SampledIsWhatTheHostDraws) {
  struct Settings {
    double temperature;
    int64_t top_k;
    double top_p, min_p;
  };
  const Settings all[] = {{1.0, 0, 1.0, 0},     {0.7, 5, 1.0, 0},   {1.3, 40, 0.8, 0},
                          {1.0, 40, 1.0, 0.05}, {2.0, 299, 0.9, 0}, {1.0, 300, 1.0, 0},
                          {1.0, 0, 0.5, 0},     {3.0, 1, 1.0, 0},   {1.0, 2000, 0.9, 0}};
  for (const double steps : {2.0, 1e6}) {  // ties at nearly every cut; nearly none
    const at::Tensor logits = rows_with_ties(50, 300, steps);
    for (const Settings& s : all) {
      std::vector<std::mt19937_64> own, same;
      for (std::uint64_t row = 0; row < 50; ++row) {
        own.emplace_back(row);
        same.emplace_back(row);
      }
      const std::vector<int64_t> tokens =
          sampled_tokens(logits, s.temperature, s.top_k, s.top_p, s.min_p,
                         [&](int64_t row) -> std::mt19937_64& { return own[static_cast<size_t>(row)]; });
      ASSERT_EQ(tokens.size(), 50U);
      for (size_t row = 0; row < 50; ++row) {
        EXPECT_EQ(tokens[row], sampled_token(row_of(logits, static_cast<int64_t>(row)), s.temperature, s.top_k, s.top_p,
                                             s.min_p, same[row]))
            << "row " << row << ", top_k " << s.top_k << ", steps " << steps;
        EXPECT_EQ(own[row], same[row]) << "one number of the stream for each token";
      }
    }
  }
}

TEST(SamplingRows, WhatIsNotFiniteIsRefused) {
  std::mt19937_64 random(1);
  const auto stream = [&](int64_t) -> std::mt19937_64& { return random; };
  for (const float bad : {std::nanf(""), INFINITY}) {
    at::Tensor logits = at::zeros({2, 30});
    logits[1][7] = bad;
    EXPECT_THROW(greedy_tokens(logits), Error);
    EXPECT_THROW(sampled_tokens(logits, 1.0, 3, 1.0, 0, stream), Error);
    EXPECT_THROW(sampled_tokens(logits, 1.0, 0, 1.0, 0, stream), Error);
  }
  const at::Tensor nothing = at::full({1, 30}, -INFINITY);
  EXPECT_THROW(greedy_tokens(nothing), Error);
  EXPECT_THROW(sampled_tokens(nothing, 1.0, 3, 1.0, 0, stream), Error);
}

}  // namespace
}  // namespace kvc
