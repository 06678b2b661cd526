// Loops and ATen chains against float64 loops. float32: a few roundings of 6e-8 on results of size up to 10. bfloat16:
// one rounding to 8 bits, half a unit in the last place = 2^-9 relative.
#include "harness/model/elementwise.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/model/linear.h"

namespace kvc {
namespace {

using Numbers = std::vector<double>;

Numbers numbers(const at::Tensor& tensor) {
  const at::Tensor wide = tensor.to(at::kDouble).contiguous();
  return {wide.const_data_ptr<double>(), wide.const_data_ptr<double>() + wide.numel()};
}

void expect_near(const at::Tensor& got, const Numbers& expected, at::ScalarType dtype, double scale = 1) {
  ASSERT_EQ(got.numel(), static_cast<int64_t>(expected.size()));
  const Numbers values = numbers(got);
  const double relative = dtype == at::kFloat ? 0 : 0x1.0p-8;
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], expected[i], 4e-6 * scale + relative * std::abs(expected[i])) << i;
  }
}

// A dense tensor and a strided one of the same numbers: the second is no case for the loops and goes through ATen.
std::vector<at::Tensor> layouts(const at::Tensor& dense) {
  return {dense, dense.t().contiguous().t()};
}

class Elementwise : public ::testing::TestWithParam<std::tuple<at::ScalarType, int64_t>> {
 protected:
  void SetUp() override { at::manual_seed(7); }
  at::ScalarType dtype() const { return std::get<0>(GetParam()); }
  int64_t size() const { return std::get<1>(GetParam()); }
  at::Tensor random(std::vector<int64_t> shape) const { return (at::randn(shape) * 2).to(dtype()); }
};

Numbers naive_norm(const at::Tensor& rows, const at::Tensor& weight, double eps) {
  Numbers x = numbers(rows);
  const Numbers w = numbers(weight);
  for (size_t first = 0; first < x.size(); first += w.size()) {
    double squares = 0;
    for (size_t i = 0; i < w.size(); ++i) squares += x[first + i] * x[first + i];
    for (size_t i = 0; i < w.size(); ++i) {
      x[first + i] *= w[i] / std::sqrt(squares / static_cast<double>(w.size()) + eps);
    }
  }
  return x;
}

TEST_P(Elementwise, RmsNorm) {
  const at::Tensor weight = random({size()});
  for (const at::Tensor& rows : layouts(random({37, size()}))) {
    expect_near(rms_norm(rows, weight, 0.01), naive_norm(rows, weight, 0.01), dtype(), 10);
  }
}

TEST_P(Elementwise, AddRmsNorm) {
  const at::Tensor weight = random({size()}), b = random({37, size()});
  for (const at::Tensor& a : layouts(random({37, size()}))) {
    const auto [sum, norm] = add_rms_norm(a, b, weight, 0.01);
    EXPECT_TRUE(at::equal(sum, a + b));
    expect_near(norm, naive_norm(sum, weight, 0.01), dtype(), 10);
  }
}

TEST_P(Elementwise, SiluMul) {
  at::Tensor dense = random({5, 2 * size()});
  dense[0][0] = -200;  // exp overflows float32
  dense[1][0] = 200;
  for (const at::Tensor& gate_up : layouts(dense)) {
    const Numbers x = numbers(gate_up);
    Numbers expected;
    const auto f = static_cast<size_t>(size());
    for (size_t r = 0; r < 5; ++r) {
      for (size_t i = 0; i < f; ++i) {
        const double gate = x[r * 2 * f + i];
        expected.push_back(gate / (1 + std::exp(-gate)) * x[r * 2 * f + f + i]);
      }
    }
    expect_near(silu_mul(gate_up), expected, dtype(), 100);
  }
}

TEST_P(Elementwise, RotateHeads) {
  const int64_t head_dim = size() % 2 == 0 ? size() : size() + 1, half = head_dim / 2;
  const at::Tensor angles = at::randn({50, half});
  const RotaryTables tables{angles.cos(), angles.sin()};
  const std::vector<int64_t> positions = {0, 49, 7, 7};
  for (const bool with_norm : {false, true}) {
    const at::Tensor q_norm = with_norm ? random({head_dim}) : at::Tensor();
    const at::Tensor k_norm = with_norm ? random({head_dim}) : at::Tensor();
    const at::Tensor dense = random({4, 7 * head_dim});
    // Three query heads over two key heads; a view that is not dense takes the general way.
    for (const at::Tensor& qkv : {dense, at::cat({dense, dense}, 1).narrow(1, 0, 7 * head_dim)}) {
      const RotatedHeads got = rotate_heads(qkv, 3, 2, q_norm, k_norm, 0.01, tables, positions);
      const auto expected = [&](int64_t first, int64_t n, const at::Tensor& norm) {
        const at::Tensor heads = dense.view({4, 7, head_dim}).narrow(1, first, n);
        const Numbers x = norm.defined() ? naive_norm(heads, norm, 0.01) : numbers(heads);
        const Numbers cos = numbers(tables.cos), sin = numbers(tables.sin);
        Numbers y(x.size());
        for (size_t i = 0; i < x.size(); ++i) {
          const auto token = static_cast<int64_t>(i) / (n * head_dim), in_head = static_cast<int64_t>(i) % head_dim;
          const auto angle = static_cast<size_t>(positions[static_cast<size_t>(token)] * half + in_head % half);
          const bool first_half = in_head < half;
          const double other = x[first_half ? i + static_cast<size_t>(half) : i - static_cast<size_t>(half)];
          y[i] = x[i] * cos[angle] + (first_half ? -1 : 1) * other * sin[angle];
        }
        return y;
      };
      // Two terms may cancel: errors are relative to them, not to the result.
      const double scale = dtype() == at::kFloat ? 10 : 3000;
      expect_near(got.queries, expected(0, 3, q_norm), dtype(), scale);
      expect_near(got.keys, expected(3, 2, k_norm), dtype(), scale);
    }
  }
}

TEST_P(Elementwise, ProjectForEveryNumberOfRows) {
  // Widths that fill no tile, and rows on both sides of the own kernel's limit.
  for (const int64_t width : {1, 6, 64}) {
    const at::Tensor weight = random({width, size()}), bias = random({width});
    for (const int64_t n : {1, 2, 3, 4, 5, 7, 16, 32, 33, 70}) {
      const at::Tensor rows = random({n, size()});
      const Numbers x = numbers(rows), w = numbers(weight), b = numbers(bias);
      Numbers plain, biased;
      const auto k = static_cast<size_t>(size());
      for (size_t m = 0; m < static_cast<size_t>(n); ++m) {
        for (size_t o = 0; o < static_cast<size_t>(width); ++o) {
          double sum = 0;
          for (size_t i = 0; i < k; ++i) sum += x[m * k + i] * w[o * k + i];
          plain.push_back(sum);
          biased.push_back(sum + b[o]);
        }
      }
      // Up to 576 products of size 4 and more: float32 sums err by some 1e-4 at the worst, bfloat16 sums may be rounded
      // in between.
      const double scale = dtype() == at::kFloat ? 50 : 100;
      expect_near(project(rows, weight, bias), biased, dtype(), scale);
      expect_near(project(rows, weight), plain, dtype(), scale);
      EXPECT_EQ(project_float(rows, weight).scalar_type(), at::kFloat);
      expect_near(project_float(rows, weight), plain,
                  n <= kFewRows && has_few_rows_kernel(dtype()) ? at::kFloat : dtype(), scale);
    }
  }
}

TEST_P(Elementwise, ProjectGivesARowTheSameBitsInAnyBatch) {
  if (!has_few_rows_kernel(dtype()))
    GTEST_SKIP() << "bfloat16 is LibTorch's on this processor, which promises no such thing";
  const at::Tensor weight = random({50, size()}), rows = random({kFewRows, size()});
  const at::Tensor all = project(rows, weight);
  for (int64_t m = 0; m < kFewRows; ++m) {
    EXPECT_TRUE(at::equal(project(rows.narrow(0, m, 1), weight)[0], all[m])) << m;
    EXPECT_TRUE(at::equal(project(rows.narrow(0, m, kFewRows - m), weight)[0], all[m])) << m;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Elementwise,
                         ::testing::Combine(::testing::Values(at::kFloat, at::kBFloat16),
                                            ::testing::Values<int64_t>(1, 16, 50, 576)),
                         [](const auto& type) {
                           return std::string(toString(std::get<0>(type.param))) +
                                  std::to_string(std::get<1>(type.param));
                         });

}  // namespace
}  // namespace kvc
