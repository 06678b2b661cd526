// Attention on tensor cores: the kernels' own text, run on the host register by register
// (harness/testing/cuda_emulation.h), against float64 loops. Prefixes of a decoding step are held by
// ragged_attention_cuda_test.cpp.
#include "harness/testing/cuda_emulation.h"
// The kernels, under the emulation's names.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "harness/attention/cuda_statistics_glue.h"
#include "harness/attention/tensor_attention_cuda.cu"

namespace kvc::emulated_cuda {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

struct Problem {
  at::Tensor queries, keys, values, bias;
  RowReach reach;
};

Problem problem_of(int64_t heads, int64_t n, int64_t t, int64_t d, bool bias, std::uint64_t seed = 7) {
  auto random = at::detail::createCPUGenerator(seed);
  const auto normal = [&](at::IntArrayRef shape) { return at::randn(shape, random, at::TensorOptions(at::kFloat)); };
  Problem made{normal({heads, n, d}).mul_(2).to(at::kBFloat16),
               normal({heads, t, d}).to(at::kBFloat16),
               normal({heads, t, d}).to(at::kBFloat16),
               {},
               {}};
  if (bias) made.bias = normal({heads, t}).mul_(2);
  return made;
}

// As on paper: float64, one query and one key at a time.
struct Expected {
  std::vector<double> row_max, mass, output, per_key;
};

double listed(const at::Tensor& list, int64_t i, double otherwise) {
  return list.defined() ? list.to(at::kDouble)[i].item<double>() : otherwise;
}

Expected expected_of(const Problem& p, int64_t head, KeySum sum) {
  const int64_t n = p.queries.size(1), t = p.keys.size(1), d = p.keys.size(2);
  const at::Tensor queries = p.queries[head].to(at::kDouble), keys = p.keys[head].to(at::kDouble),
                   values = p.values.defined() ? p.values[head].to(at::kDouble) : keys;
  const at::Tensor bias = p.bias.defined() ? p.bias[head].to(at::kDouble) : at::zeros({t}, at::kDouble);
  const auto *q = queries.const_data_ptr<double>(), *k = keys.const_data_ptr<double>(),
             *v = values.const_data_ptr<double>(), *b = bias.const_data_ptr<double>();
  Expected want;
  want.per_key.assign(static_cast<size_t>(t), 0);
  std::vector<double> logits(static_cast<size_t>(t));
  for (int64_t i = 0; i < n; ++i) {
    const double visible = listed(p.reach.n_visible, i, static_cast<double>(t));
    double most = kNothing, mass = 0;
    for (int64_t j = 0; j < t; ++j) {
      double dot = 0;
      for (int64_t c = 0; c < d; ++c) dot += q[i * d + c] * k[j * d + c];
      double& logit = logits[static_cast<size_t>(j)];
      logit = static_cast<double>(j) < visible ? dot / std::sqrt(static_cast<double>(d)) + b[j] : kNothing;
      most = std::max(most, logit);
    }
    for (const double logit : logits) mass += most == kNothing ? 0 : std::exp(logit - most);
    want.row_max.push_back(most);
    want.mass.push_back(mass);
    const double elsewhere = std::exp(listed(p.reach.elsewhere, i, kNothing) - (most == kNothing ? 0 : most));
    for (int64_t c = 0; c < d; ++c) want.output.push_back(0);
    for (int64_t j = 0; j < t; ++j) {
      const double weight = mass == 0 ? 0 : std::exp(logits[static_cast<size_t>(j)] - most);
      for (int64_t c = 0; mass > 0 && c < d; ++c) {
        want.output[static_cast<size_t>(i * d + c)] += weight / mass * v[j * d + c];
      }
      const double share = mass == 0 ? 0 : weight / (mass + elsewhere) * listed(p.reach.weight, i, 1);
      double& to = want.per_key[static_cast<size_t>(j)];
      to = sum == KeySum::kLargest ? std::max(to, share) : to + (sum == KeySum::kSquares ? share * share : share);
    }
  }
  return want;
}

void expect_near(const at::Tensor& got, const std::vector<double>& want, double relative, double absolute,
                 const std::string& what) {
  const at::Tensor list = got.contiguous().view(-1);
  ASSERT_EQ(list.numel(), static_cast<int64_t>(want.size())) << what;
  for (size_t i = 0; i < want.size(); ++i) {
    const double found = double{list.const_data_ptr<float>()[i]};
    ASSERT_NEAR(found, want[i], relative * std::abs(want[i]) + absolute) << what << ' ' << i;
  }
}

void check(const Problem& p, KeySum sum) {
  const auto got = statistics(p.queries, p.keys, p.bias, p.values, sum, p.reach, nullptr);
  ASSERT_TRUE(got);
  for (int64_t h = 0; h < p.queries.size(0); ++h) {
    Expected want = expected_of(p, h, sum);
    for (double& most : want.row_max) most = std::max(most, double{std::numeric_limits<float>::lowest()});
    expect_near(got->row_max[h], want.row_max, 1e-6, 3e-6, "row_max");
    expect_near(got->row_sum[h], want.mass, 1e-5, 0, "row_sum");
    expect_near(got->per_key[h], want.per_key, 2e-5, 1e-9, "per_key");
    ASSERT_EQ(got->output.defined(), p.values.defined());
    // Weights are rounded to bfloat16: 2^-9 of weights that sum to 1, values of size about 1.
    if (p.values.defined()) expect_near(got->output[h], want.output, 0, 8e-3, "output");
  }
}

const KeySum kSums[] = {KeySum::kSquares, KeySum::kLargest, KeySum::kPlain};

TEST(TensorAttention, StatisticsEqualFloat64Loops) {
  struct Size {
    int64_t heads, n, t, d;
    bool bias;
  };
  const Size sizes[] = {{2, 70, 150, 64, true},  {1, 130, 67, 80, false}, {2, 33, 129, 96, true},
                        {3, 65, 131, 128, true}, {1, 40, 70, 256, true},  {1, 1, 1, 128, false},
                        {2, 1, 200, 64, true},   {1, 129, 1, 72, true},   {1, 64, 64, 8, false},
                        {1, 17, 90, 200, false}};
  int which = 0;
  for (const Size& s : sizes) check(problem_of(s.heads, s.n, s.t, s.d, s.bias), kSums[which++ % 3]);
  for (const KeySum sum : kSums) check(problem_of(1, 70, 140, 128, true, 11), sum);
}

TEST(TensorAttention, WithoutValuesThereIsNoOutput) {
  Problem p = problem_of(2, 50, 70, 64, false);
  p.values = at::Tensor();
  check(p, KeySum::kPlain);
}

TEST(TensorAttention, AnInfinitelyNegativeBiasSwitchesAnEntryOff) {
  Problem p = problem_of(2, 30, 140, 64, true);
  p.bias[0].slice(0, 0, 140, 3).fill_(-INFINITY);
  p.bias[0].narrow(0, 64, 64).fill_(-INFINITY);  // a whole tile
  p.bias[1].fill_(-INFINITY);                    // a head that sees nothing
  check(p, KeySum::kSquares);
  const auto got = statistics(p.queries, p.keys, p.bias, p.values, KeySum::kPlain, {}, nullptr);
  EXPECT_EQ(got->per_key[1].abs().sum().item<float>(), 0);
  EXPECT_EQ(got->row_sum[1].abs().sum().item<float>(), 0);
  EXPECT_EQ(got->output[1].abs().sum().item<float>(), 0);
  EXPECT_EQ(got->per_key[0].narrow(0, 64, 64).sum().item<float>(), 0);
}

TEST(TensorAttention, AReachLimitsAndWeighsRows) {
  for (const KeySum sum : kSums) {
    Problem p = problem_of(1, 80, 140, 64, sum == KeySum::kPlain);
    auto random = at::detail::createCPUGenerator(3);
    p.reach.n_visible = at::arange(80, at::kLong).mul_(2).sub_(9).clamp_(0, 140);  // the first ones see nothing
    check(p, sum);
    p.reach.elsewhere = at::randn({80}, random, at::TensorOptions(at::kFloat)).mul_(3);
    p.reach.weight = at::rand({80}, random, at::TensorOptions(at::kFloat)).mul_(2);
    p.reach.weight[20] = 0;
    p.reach.weight[2] = 0;  // of a row that sees nothing
    check(p, sum);
    p.reach.elsewhere = at::Tensor();
    check(p, sum);
    p.reach.n_visible = at::Tensor();
    check(p, sum);
  }
}

// Where logits are large, ln of a mass has few digits behind the point.
TEST(TensorAttention, MassesKeepTheirDigitsWhereLogitsAreLarge) {
  Problem p = problem_of(2, 30, 150, 64, true);
  p.queries.zero_();
  p.bias.fill_(1024);
  const auto got = statistics(p.queries, p.keys, p.bias, p.values, KeySum::kPlain, {}, nullptr);
  EXPECT_TRUE(at::equal(got->row_max, at::full_like(got->row_max, 1024)));
  EXPECT_TRUE(at::equal(got->row_sum, at::full_like(got->row_sum, 150)));
}

// No atomics and no order that depends on what stands beside a head.
TEST(TensorAttention, AHeadHasTheSameBitsAloneAndInABatch) {
  const Problem p = problem_of(3, 100, 150, 64, true);
  const auto all = statistics(p.queries, p.keys, p.bias, p.values, KeySum::kSquares, {}, nullptr);
  const auto again = statistics(p.queries, p.keys, p.bias, p.values, KeySum::kSquares, {}, nullptr);
  EXPECT_TRUE(at::equal(all->per_key, again->per_key));
  for (int64_t h = 0; h < 3; ++h) {
    const auto own = [&](const at::Tensor& tensor) { return tensor.narrow(0, h, 1); };
    const auto one = statistics(own(p.queries), own(p.keys), own(p.bias), own(p.values), KeySum::kSquares, {}, nullptr);
    EXPECT_TRUE(at::equal(one->per_key, own(all->per_key)));
    EXPECT_TRUE(at::equal(one->row_max, own(all->row_max)));
    EXPECT_TRUE(at::equal(one->row_sum, own(all->row_sum)));
    EXPECT_TRUE(at::equal(one->output, own(all->output)));
  }
}

TEST(TensorAttention, MoreHeadsThanALaunchTakes) {
  const Problem p = problem_of(kMaxKvHeads + 2, 3, 5, 8, true);
  column_launches() = {};
  check(p, KeySum::kPlain);
  EXPECT_EQ(column_launches().launches, 3);
}

TEST(TensorAttention, WhatIsNoNumberStaysVisible) {
  for (const KeySum sum : kSums) {
    const Problem p = problem_of(2, 20, 70, 64, false);
    p.queries[0][3][5] = std::nan("");
    const auto got = statistics(p.queries, p.keys, p.bias, p.values, sum, {}, nullptr);
    EXPECT_TRUE(std::isnan(got->row_sum[0][3].item<float>()));
    EXPECT_TRUE(got->output[0][3].isnan().all().item<bool>());
    EXPECT_TRUE(got->per_key[0].isnan().all().item<bool>());
    EXPECT_TRUE(got->per_key[1].isfinite().all().item<bool>());
  }
}

TEST(TensorAttention, OtherTensorsAreNotTaken) {
  const Problem p = problem_of(1, 4, 6, 16, false);
  const auto taken = [&](const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
    return statistics(queries, keys, {}, values, KeySum::kPlain, {}, nullptr).has_value();
  };
  EXPECT_TRUE(taken(p.queries, p.keys, {}));
  EXPECT_FALSE(taken(p.queries.to(at::kHalf), p.keys.to(at::kHalf), {}));
  EXPECT_FALSE(taken(p.queries.to(at::kFloat), p.keys.to(at::kFloat), {}));
  EXPECT_FALSE(taken(p.queries.narrow(2, 0, 12), p.keys.narrow(2, 0, 12), {}));
  EXPECT_FALSE(taken(p.queries.narrow(1, 0, 0), p.keys, {}));
  EXPECT_FALSE(taken(p.queries, p.keys, p.values.narrow(2, 0, 8)));
}

}  // namespace
}  // namespace kvc::emulated_cuda
