// Least squares of several heads at once against singular value decompositions and against the fit of each head alone.
#include "harness/math/batched_least_squares.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "harness/core/error.h"

namespace kvc {
namespace {

at::Tensor normal(std::vector<int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kDouble));
}

// Columns with singular values from 1 down to 1/condition.
at::Tensor matrix_of_condition(int64_t n, int64_t t, double condition, std::uint64_t seed) {
  const at::Tensor left = std::get<0>(at::linalg_qr(normal({n, t}, seed)));
  const at::Tensor right = std::get<0>(at::linalg_qr(normal({t, t}, seed + 1)));
  const at::Tensor values = at::pow(condition, at::linspace(0, -1, t, at::TensorOptions(at::kDouble)));
  return at::mm(left * values, right.t());
}

// The judge: float64, of smallest norm.
at::Tensor svd_solution(const at::Tensor& a, const at::Tensor& b) {
  const auto [u, s, vh] = at::linalg_svd(a.to(at::kDouble), /*full_matrices=*/false);
  const at::Tensor inverse = at::where(s > kRankCutoff * s[0], s.reciprocal(), at::zeros_like(s)).unsqueeze(1);
  return at::mm(vh.t(), inverse * at::mm(u.t(), b.to(at::kDouble)));
}

double relative_error(const at::Tensor& found, const at::Tensor& judge) {
  return ((found.to(at::kDouble) - judge.to(at::kDouble)).norm() / judge.to(at::kDouble).norm()).item<double>();
}

class Routes : public testing::TestWithParam<FitRoute> {};
INSTANTIATE_TEST_SUITE_P(BatchedLeastSquares, Routes, testing::Values(FitRoute::kDouble, FitRoute::kRefined),
                         [](const auto& test) { return test.param == FitRoute::kDouble ? "Double" : "Refined"; });

// Heads of several widths and conditions, filled up with zeros to the widest.
TEST_P(Routes, HeadsOfDifferentWidthsAreThoseOfTheJudge) {
  const int64_t n = 900, widest = 210;
  const std::vector<int64_t> widths = {210, 1, 64, 130};
  const std::vector<double> conditions = {30, 1, 300, 10};
  const at::Tensor a = at::zeros({4, n, widest}, at::kFloat), b = normal({4, n, 5}, 9).to(at::kFloat);
  for (size_t h = 0; h < widths.size(); ++h) {
    a[static_cast<int64_t>(h)].narrow(1, 0, widths[h]).copy_(matrix_of_condition(n, widths[h], conditions[h], 3 + h));
  }
  const BatchedSolution found = batched_least_squares(a, b, GetParam());
  for (int64_t h = 0; h < 4; ++h) {
    const int64_t width = widths[static_cast<size_t>(h)];
    EXPECT_TRUE(found.trusted[h].item<bool>()) << h;
    EXPECT_EQ(found.rank[h].item<int64_t>(), width);
    const at::Tensor solution = found.solution[h].narrow(0, 0, width);
    EXPECT_LT(relative_error(solution, svd_solution(a[h].narrow(1, 0, width), b[h])),
              GetParam() == FitRoute::kDouble ? 3e-7 : 5e-6)
        << h;
    if (width < widest) {
      EXPECT_EQ(found.solution[h].narrow(0, width, widest - width).abs().max().item<double>(), 0);
    }
  }
}

// More rows than are summed in float32 at a time.
TEST_P(Routes, ManyRows) {
  const at::Tensor a =
      at::stack({matrix_of_condition(9000, 40, 50, 1), matrix_of_condition(9000, 40, 5, 2)}).to(at::kFloat);
  const at::Tensor b = normal({2, 9000, 3}, 9).to(at::kFloat);
  const BatchedSolution found = batched_least_squares(a, b, GetParam());
  for (int64_t h = 0; h < 2; ++h) {
    EXPECT_TRUE(found.trusted[h].item<bool>());
    EXPECT_LT(relative_error(found.solution[h], svd_solution(a[h], b[h])), 5e-6);
  }
}

TEST_P(Routes, HeadsThatNeedAnotherWayAreToldAndSpoilNoOther) {
  at::Tensor a = at::softmax(normal({4, 700, 90}, 5), 2).to(at::kFloat);
  const at::Tensor b = normal({4, 700, 6}, 6).to(at::kFloat);
  const BatchedSolution before = batched_least_squares(a, b, GetParam());
  EXPECT_TRUE(before.trusted.all().item<bool>());
  a[1].narrow(1, 7, 1).copy_(a[1].narrow(1, 8, 1));  // dependent columns
  a[2][3][4] = std::nan("");
  for (const int64_t column : {3, 77, 89}) a[3].narrow(1, column, 1).mul_(1e-9);  // short ones: left out
  const BatchedSolution found = batched_least_squares(a, b, GetParam());
  EXPECT_TRUE(found.trusted[0].item<bool>());
  EXPECT_TRUE(at::equal(found.solution[0], before.solution[0]));
  EXPECT_FALSE(found.trusted[1].item<bool>());
  EXPECT_FALSE(found.trusted[2].item<bool>());
  EXPECT_TRUE(found.trusted[3].item<bool>());
  EXPECT_EQ(found.rank[3].item<int64_t>(), 87);
  EXPECT_EQ(found.solution[3][77].abs().max().item<double>(), 0);
  EXPECT_LT(relative_error(found.solution[3], svd_solution(a[3], b[3])), 1e-5);
}

// A head that float32 cannot solve is reported, not solved wrongly.
TEST(BatchedLeastSquares, AHardHeadIsRefusedByFloat32AndSolvedByFloat64) {
  const at::Tensor a = matrix_of_condition(600, 96, 3e4, 3).unsqueeze(0).to(at::kFloat);
  const at::Tensor b = normal({1, 600, 4}, 9).to(at::kFloat);
  EXPECT_FALSE(batched_least_squares(a, b, FitRoute::kRefined).trusted.item<bool>());
  const BatchedSolution found = batched_least_squares(a, b, FitRoute::kDouble);
  EXPECT_TRUE(found.trusted.item<bool>());
  EXPECT_LT(relative_error(found.solution[0], svd_solution(a[0], b[0])), 3e-5);
}

TEST_P(Routes, BoxedFitsAreThoseOfEachHeadAlone) {
  const int64_t n = 500, widest = 80;
  const std::vector<int64_t> widths = {80, 33, 50};
  const at::Tensor a = at::zeros({3, n, widest}, at::kFloat), y = normal({3, n}, 2).abs().add(1.0).to(at::kFloat);
  const at::Tensor present = at::zeros({3, widest}, at::kBool);
  for (int64_t h = 0; h < 3; ++h) {
    const int64_t width = widths[static_cast<size_t>(h)];
    a[h].narrow(1, 0, width).copy_(normal({n, width}, 20 + static_cast<std::uint64_t>(h)).exp());
    present[h].narrow(0, 0, width).fill_(true);
  }
  for (const BoxSettings& settings : {BoxSettings{.lower = 0.01, .upper = 0.05, .iterations = 2}, BoxSettings{}}) {
    const BatchedBoxedFit found = batched_fit_box(a, y, present, settings, GetParam());
    for (int64_t h = 0; h < 3; ++h) {
      const int64_t width = widths[static_cast<size_t>(h)];
      const NormalEquations alone(a[h].narrow(1, 0, width).contiguous(), y[h], FitRoute::kDouble);
      const BoxedFit want = alone.fit_box(width, settings);
      EXPECT_TRUE(found.trusted[h].item<bool>());
      EXPECT_LT(relative_error(found.solution[h].narrow(0, 0, width), want.solution), 2e-5);
      EXPECT_EQ(found.n_at_bound[h].item<int64_t>(), want.n_at_lower + want.n_at_upper);
      EXPECT_EQ(found.rank[h].item<int64_t>(), width);
      if (width < widest) {
        EXPECT_EQ(found.solution[h][width].item<float>(), 0);
      }
    }
  }
}

TEST(BatchedLeastSquares, RefusesFewerRowsThanColumns) {
  EXPECT_THROW((void)batched_least_squares(at::ones({2, 5, 6}), at::ones({2, 5, 1})), Error);
}

}  // namespace
}  // namespace kvc
