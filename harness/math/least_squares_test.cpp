#include "harness/math/least_squares.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "harness/core/error.h"

namespace kvc {
namespace {

at::Tensor normal(std::vector<int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kDouble));
}

// Columns with singular values from 1 down to 1/condition, float32.
at::Tensor matrix_of_condition(int64_t n, int64_t t, double condition, std::uint64_t seed) {
  const int64_t rank = std::min(n, t);
  const at::Tensor left = std::get<0>(at::linalg_qr(normal({n, rank}, seed)));
  const at::Tensor right = std::get<0>(at::linalg_qr(normal({t, rank}, seed + 1)));
  const at::Tensor values = at::pow(condition, at::linspace(0, -1, rank, at::TensorOptions(at::kDouble)));
  return at::mm(left * values, right.t()).to(at::kFloat);
}

// The judge: float64 SVD, minimum norm.
at::Tensor svd_solution(const at::Tensor& a, const at::Tensor& b) {
  const auto [u, s, vh] = at::linalg_svd(a.to(at::kDouble), /*full_matrices=*/false);
  const at::Tensor inverse = at::where(s > kRankCutoff * s[0], s.reciprocal(), at::zeros_like(s)).unsqueeze(1);
  return at::mm(vh.t(), inverse * at::mm(u.t(), b.to(at::kDouble)));
}

double relative_error(const at::Tensor& found, const at::Tensor& judge) {
  return ((found.to(at::kDouble) - judge).norm() / judge.norm()).item<double>();
}

struct Case {
  int64_t n, t;
  double condition;
};

class AgainstSvd : public testing::TestWithParam<Case> {};

TEST_P(AgainstSvd, SameSolutionAndResidual) {
  const auto [n, t, condition] = GetParam();
  const at::Tensor a = matrix_of_condition(n, t, condition, 3);
  const at::Tensor b = normal({n, 5}, 9).to(at::kFloat);
  const LeastSquares found = least_squares(a, b);
  const at::Tensor judge = svd_solution(a, b);
  // float32 storage alone gives 6e-8; the normal equations add condition^2 * 1e-16, reduced by one refinement. From 32
  // columns on 3e-6 is what is promised.
  const double allowed = t >= 32 && n >= t ? 5e-6 : condition <= 1e4 ? 3e-7 : 3e-5;
  EXPECT_LT(relative_error(found.solution, judge), allowed) << "condition " << condition;
  const double judge_residual = (at::mm(a.to(at::kDouble), judge) - b.to(at::kDouble)).norm().item<double>();
  EXPECT_NEAR(found.residual_norm, judge_residual, (allowed > 1e-6 ? 1e-6 : 1e-7) * b.norm().item<double>());
  EXPECT_EQ(found.rank, std::min(n, t));
  EXPECT_EQ(found.solver, LeastSquaresSolver::kCholesky);
}

INSTANTIATE_TEST_SUITE_P(Shapes, AgainstSvd,
                         testing::Values(Case{200, 1, 1}, Case{200, 50, 10}, Case{300, 130, 1e3}, Case{300, 300, 1e2},
                                         Case{900, 257, 1e4}, Case{400, 60, 1e5}, Case{40, 90, 10}, Case{100, 300, 1e3},
                                         Case{1500, 400, 300}, Case{5000, 200, 1e3}, Case{700, 250, 2e3},
                                         Case{600, 192, 3e4}, Case{600, 96, 3e4}, Case{500, 96, 10}, Case{900, 32, 300},
                                         Case{4000, 64, 20}));

// A GPU's way, on the CPU: float64 throughout, so that no condition costs more than the data's own rounding.
TEST_P(AgainstSvd, AllInFloat64) {
  const auto [n, t, condition] = GetParam();
  const at::Tensor a = matrix_of_condition(n, t, condition, 3);
  const at::Tensor b = normal({n, 5}, 9).to(at::kFloat);
  const LeastSquares found = least_squares(a, b, FitRoute::kDouble);
  EXPECT_LT(relative_error(found.solution, svd_solution(a, b)), condition <= 1e4 ? 3e-7 : 3e-5);
  EXPECT_EQ(found.rank, std::min(n, t));
}

TEST(LeastSquares, InFloat64ShortAndDependentColumnsToo) {
  at::Tensor a = at::softmax(normal({900, 200}, 5), 1).to(at::kFloat);
  for (const int64_t column : {3, 77, 199}) a.narrow(1, column, 1).mul_(1e-9);
  const at::Tensor b = normal({900, 8}, 6).to(at::kFloat);
  const LeastSquares found = least_squares(a, b, FitRoute::kDouble);
  EXPECT_EQ(found.solver, LeastSquaresSolver::kCholesky);
  EXPECT_EQ(found.rank, 197);
  EXPECT_EQ(found.solution[77].abs().max().item<float>(), 0);
  EXPECT_LT(relative_error(found.solution, svd_solution(a, b)), 1e-5);
  a.narrow(1, 5, 1).copy_(a.narrow(1, 6, 1));
  EXPECT_LT(relative_error(least_squares(a, b, FitRoute::kDouble).solution, svd_solution(a, b)), 1e-5);
  EXPECT_EQ(least_squares(at::zeros({50, 40}), b.narrow(0, 0, 50), FitRoute::kDouble).rank, 0);
}

TEST(LeastSquares, TheCpuIsNotAskedForAGpusRoute) {
  const at::Tensor a = matrix_of_condition(400, 60, 1e3, 3), b = normal({400, 5}, 9).to(at::kFloat);
  const at::Tensor before = least_squares(a, b).solution;
  set_gpu_fit_route(FitRoute::kDouble);
  EXPECT_TRUE(at::equal(least_squares(a, b).solution, before));
  set_gpu_fit_route(FitRoute::kRefined);
}

TEST(LeastSquares, DependentColumnsGiveTheMinimumNormSolution) {
  const at::Tensor part = normal({80, 10}, 1).to(at::kFloat);
  const at::Tensor a = at::cat({part, part, part.narrow(1, 0, 3)}, 1);
  const at::Tensor b = normal({80, 4}, 2).to(at::kFloat);
  const LeastSquares found = least_squares(a, b);
  EXPECT_EQ(found.solver, LeastSquaresSolver::kEigenvectors);
  EXPECT_EQ(found.rank, 10);
  EXPECT_LT(relative_error(found.solution, svd_solution(a, b)), 1e-6);
}

TEST(LeastSquares, DependentRowsOfAWideMatrixToo) {
  const at::Tensor part = normal({10, 60}, 1).to(at::kFloat);
  const at::Tensor a = at::cat({part, part}, 0);
  const at::Tensor b = normal({20, 2}, 2).to(at::kFloat);
  const LeastSquares found = least_squares(a, b);
  EXPECT_EQ(found.solver, LeastSquaresSolver::kEigenvectors);
  EXPECT_EQ(found.rank, 10);
  EXPECT_LT(relative_error(found.solution, svd_solution(a, b)), 1e-6);
}

TEST(LeastSquares, AWideSystemIsSolvedExactly) {
  const at::Tensor a = normal({30, 70}, 1).to(at::kFloat);
  const at::Tensor b = normal({30, 3}, 2).to(at::kFloat);
  EXPECT_LT(least_squares(a, b).residual_norm, 1e-9);
}

TEST(LeastSquares, ResidualIsOrthogonalToTheColumns) {
  const at::Tensor a = at::softmax(normal({500, 40}, 5) * 3, 1).to(at::kFloat);
  const at::Tensor b = normal({500, 8}, 6).to(at::kFloat);
  const LeastSquares found = least_squares(a, b);
  const at::Tensor residual = at::mm(a.to(at::kDouble), found.solution.to(at::kDouble)) - b.to(at::kDouble);
  EXPECT_LT(at::mm(a.to(at::kDouble).t(), residual).abs().max().item<double>(), 1e-5);
}

// Attention tables have columns of very different size, and some hardly differ from others.
TEST(LeastSquares, ColumnsOfDifferentSizeAndNearCopies) {
  at::Tensor a = at::exp(normal({1200, 220}, 5) * 2).to(at::kFloat);
  a.mul_(at::pow(10.0, at::linspace(0, -3, 220, a.options())));
  const at::Tensor b = normal({1200, 3}, 6).to(at::kFloat);
  EXPECT_LT(relative_error(least_squares(a, b).solution, svd_solution(a, b)), 1e-5);
  for (const double difference : {1e-2, 1e-3, 1e-4}) {  // the last is beyond a float32 Gram matrix
    at::Tensor twins = a.clone();
    twins.narrow(1, 10, 1).copy_(a.narrow(1, 0, 1) * (1 + difference * at::sin(a.narrow(1, 3, 1))));
    const LeastSquares found = least_squares(twins, b);
    EXPECT_LT(relative_error(found.solution, svd_solution(twins, b)), 1e-4) << difference;
    EXPECT_EQ(found.rank, 220);
  }
  at::Tensor copies = a.clone();
  copies.narrow(1, 219, 1).copy_(a.narrow(1, 218, 1));
  const LeastSquares found = least_squares(copies, b);
  EXPECT_EQ(found.solver, LeastSquaresSolver::kEigenvectors);
  EXPECT_EQ(found.rank, 219);
}

// Entries that no query looks at: their columns are below the cut-off, the others as good as ever, and no eigenvectors
// are needed to see that.
TEST(LeastSquares, ColumnsTooShortToMatterAreLeftOut) {
  at::Tensor a = at::softmax(normal({900, 200}, 5), 1).to(at::kFloat);
  for (const int64_t column : {3, 77, 199}) a.narrow(1, column, 1).mul_(1e-9);
  const at::Tensor b = normal({900, 8}, 6).to(at::kFloat);
  const LeastSquares found = least_squares(a, b);
  EXPECT_EQ(found.solver, LeastSquaresSolver::kCholesky);
  EXPECT_EQ(found.rank, 197);
  EXPECT_LT(relative_error(found.solution, svd_solution(a, b)), 1e-5);
}

TEST(LeastSquares, ManyColumnsThatAreNotFiniteAreRefused) {
  at::Tensor a = at::ones({300, 200});
  a[7][9] = std::nan("");
  EXPECT_THROW(least_squares(a, at::ones({300})), Error);
}

TEST(LeastSquares, ZeroMatrixAndEmptyMatrix) {
  const at::Tensor b = at::ones({5, 2});
  const LeastSquares zero = least_squares(at::zeros({5, 3}), b);
  EXPECT_EQ(zero.rank, 0);
  EXPECT_EQ(zero.solution.abs().sum().item<float>(), 0);
  const LeastSquares empty = least_squares(at::zeros({5, 0}), b);
  EXPECT_EQ(empty.solution.size(0), 0);
  EXPECT_NEAR(empty.residual_norm, std::sqrt(10.0), 1e-12);
}

TEST(LeastSquares, RefusesWhatIsNotFinite) {
  at::Tensor a = at::ones({5, 2});
  a[1][1] = std::nan("");
  EXPECT_THROW(least_squares(a, at::ones({5})), Error);
  EXPECT_THROW(least_squares(at::ones({5, 2}), at::ones({4})), Error);
}

// --- box constraints

double objective(const at::Tensor& a, const at::Tensor& y, const at::Tensor& w) {
  return 0.5 * std::pow((at::mv(a.to(at::kDouble), w.to(at::kDouble)) - y.to(at::kDouble)).norm().item<double>(), 2);
}

struct NonNegativeProblem {
  at::Tensor a = normal({120, 20}, 11).abs().to(at::kFloat);
  at::Tensor y = (at::mv(normal({120, 20}, 11).abs(), normal({20}, 12)) + normal({120}, 13)).to(at::kFloat);
};

TEST(BoxFit, InsideTheBoxItIsPlainLeastSquares) {
  const at::Tensor a = normal({60, 7}, 1).abs().to(at::kFloat);
  const at::Tensor y = at::mv(a, at::ones({7}));
  const NormalEquations equations(a, y);
  const BoxedFit fit = equations.fit_box(7, {.lower = 0.05, .upper = 20.0, .iterations = 2});
  EXPECT_LT((fit.solution - 1).abs().max().item<float>(), 1e-5);
  EXPECT_EQ(fit.n_at_lower + fit.n_at_upper, 0);
  EXPECT_EQ(fit.rank, 7);
}

TEST(BoxFit, ZeroIterationsIsClampedLeastSquares) {
  const NonNegativeProblem p;
  const BoxedFit fit = NormalEquations(p.a, p.y).fit_box(20, {.lower = 0.05, .upper = 1.0});
  const at::Tensor judge = svd_solution(p.a, p.y.unsqueeze(1)).squeeze(1).clamp(0.05, 1.0);
  EXPECT_LT(relative_error(fit.solution, judge), 1e-6);
  EXPECT_EQ(fit.n_at_lower, (judge <= 0.05).sum().item<int64_t>());
  EXPECT_EQ(fit.n_at_upper, (judge >= 1.0).sum().item<int64_t>());
  EXPECT_GT(fit.n_at_lower, 0);
  EXPECT_GT(fit.n_at_upper, 0);
}

// The published procedure as plain loops; its power iteration begins with row sums, not at random.
TEST(BoxFit, StepsAreTheProjectedGradientOfTheWholeMatrix) {
  const NonNegativeProblem p;
  const BoxedFit fit = NormalEquations(p.a, p.y).fit_box(20, {.lower = 1e-12, .iterations = 3});
  const at::Tensor a = p.a.to(at::kDouble), y = p.y.to(at::kDouble);
  at::Tensor u = at::mm(a.t(), a).abs().sum(1);
  u = u / u.norm();
  for (int i = 0; i < 3; ++i) {
    at::Tensor v = at::mv(a, u);
    v = v / v.norm();
    u = at::mv(a.t(), v);
    u = u / u.norm();
  }
  const double lipschitz = std::pow(at::mv(a, u).norm().item<double>(), 2);
  at::Tensor w = svd_solution(p.a, p.y.unsqueeze(1)).squeeze(1).clamp_min(1e-12);
  for (int i = 0; i < 3; ++i) w = (w - at::mv(a.t(), at::mv(a, w) - y) / lipschitz).clamp_min(1e-12);
  EXPECT_LT(relative_error(fit.solution, w), 1e-6);
  EXPECT_NEAR(fit.residual_norm, (at::mv(a, w) - y).norm().item<double>(), 1e-6);
}

TEST(BoxFit, MoreIterationsNeverHurtAndReachTheOptimum) {
  const NonNegativeProblem p;
  const NormalEquations equations(p.a, p.y);
  double last = INFINITY;
  for (const int64_t iterations : {0, 1, 2, 10, 100, 20000}) {
    const BoxedFit fit = equations.fit_box(20, {.lower = 0.0, .iterations = iterations});
    const double now = objective(p.a, p.y, fit.solution);
    EXPECT_LE(now, last * (1 + 1e-9)) << iterations;
    last = now;
  }
  // At the optimum the gradient is zero inside and points outwards on the bound.
  const at::Tensor w = equations.fit_box(20, {.lower = 0.0, .iterations = 20000}).solution.to(at::kDouble);
  const at::Tensor a = p.a.to(at::kDouble);
  const at::Tensor gradient = at::mv(a.t(), at::mv(a, w) - p.y.to(at::kDouble));
  const double scale = at::mv(a.t(), p.y.to(at::kDouble)).abs().max().item<double>();
  for (int64_t j = 0; j < 20; ++j) {
    const double g = gradient[j].item<double>() / scale;
    if (w[j].item<double>() > 0) {
      EXPECT_NEAR(g, 0, 1e-4) << j;
    } else {
      EXPECT_GT(g, -1e-4) << j;
    }
  }
}

TEST(BoxFit, LeadingColumnsEqualASeparateFit) {
  const at::Tensor a = at::exp(normal({400, 230}, 21)).to(at::kFloat);
  const at::Tensor y = at::exp(normal({400}, 22)).to(at::kFloat);
  const NormalEquations whole(a, y);
  for (const int64_t k : {0, 1, 63, 64, 100, 150, 200, 230}) {
    const BoxSettings box{.lower = 0.05, .upper = 20.0, .iterations = 2};
    const BoxedFit nested = whole.fit_box(k, box);
    const BoxedFit separate = NormalEquations(a.narrow(1, 0, k), y).fit_box(k, box);
    ASSERT_EQ(nested.solution.size(0), k);
    if (k > 0) {
      EXPECT_LT((nested.solution - separate.solution).abs().max().item<float>(), 1e-5) << k;
    }
    EXPECT_NEAR(nested.residual_norm, separate.residual_norm, 1e-6);
  }
}

TEST(BoxFit, InFloat64TheSameFit) {
  const at::Tensor a = at::exp(normal({700, 90}, 21)).to(at::kFloat);
  const at::Tensor y = at::exp(normal({700}, 22)).to(at::kFloat);
  const BoxSettings box{.lower = 0.05, .upper = 20.0, .iterations = 2};
  const NormalEquations refined(a, y, FitRoute::kRefined), doubled(a, y, FitRoute::kDouble);
  for (const int64_t k : {5, 40, 90}) {
    const BoxedFit one = refined.fit_box(k, box), other = doubled.fit_box(k, box);
    EXPECT_LT((one.solution - other.solution).abs().max().item<float>(), 1e-4) << k;
    EXPECT_NEAR(one.residual_norm, other.residual_norm, 1e-4 * one.residual_norm);
    EXPECT_LT(
        (refined.fit_active_set(k, box).solution - doubled.fit_active_set(k, box).solution).abs().max().item<float>(),
        1e-4);
  }
}

TEST(BoxFit, FewerEquationsThanColumns) {
  const at::Tensor a = at::ones({6, 40});
  const at::Tensor y = at::full({6}, 100.0F);
  const BoxedFit fit = NormalEquations(a, y).fit_box(40, {.lower = 0.05, .upper = 20.0, .iterations = 2});
  EXPECT_LT((fit.solution - 2.5).abs().max().item<float>(), 1e-5);  // minimum norm: all equal
  EXPECT_EQ(fit.solver, LeastSquaresSolver::kEigenvectors);
  EXPECT_EQ(fit.rank, 1);
}

TEST(Ridge, IsTheLeastSquaresOfTheAugmentedSystem) {
  for (const auto& [n, t] : {std::pair<int64_t, int64_t>{60, 20}, {20, 60}}) {
    const at::Tensor a = matrix_of_condition(n, t, 1e3, 21) * 3;
    const at::Tensor b = normal({n, 4}, 22).to(at::kFloat);
    const at::Tensor a64 = a.to(at::kDouble), b64 = b.to(at::kDouble);
    const double spectral = std::pow(at::linalg_svdvals(a64).max().item<double>(), 2);
    const double frobenius = a64.square().sum().item<double>() / static_cast<double>(t);
    for (const auto& [scale, unit] :
         {std::pair{RidgeScale::kSpectral, spectral}, {RidgeScale::kFrobenius, frobenius}, {RidgeScale::kFixed, 1.0}}) {
      const double lambda = 1e-3;
      const at::Tensor eye = at::eye(t, a64.options()) * std::sqrt(lambda * unit);
      const at::Tensor judge = svd_solution(at::cat({a64, eye}), at::cat({b64, at::zeros({t, 4}, b64.options())}));
      EXPECT_LT(relative_error(ridge(a, b, lambda, scale).solution, judge), 1e-5) << n << " " << unit;
    }
  }
  EXPECT_EQ(
      ridge(normal({6, 2}, 1).to(at::kFloat), normal({6}, 2).to(at::kFloat), 0.1, RidgeScale::kFixed).solution.dim(),
      1);
}

TEST(ActiveSet, MeetsTheConditionsOfTheMinimum) {
  for (const auto& [n, t, condition] :
       {std::tuple<int64_t, int64_t, double>{200, 30, 1e2}, {200, 60, 1e4}, {20, 60, 10}, {300, 80, 1e6}}) {
    const at::Tensor a = matrix_of_condition(n, t, condition, 31).abs();
    const at::Tensor y = normal({n}, 32).abs().to(at::kFloat);
    BoxSettings box;
    box.lower = 0.05;
    box.upper = 2.0;
    box.iterations = 2;
    const NormalEquations equations(a, y);
    const BoxedFit rough = equations.fit_box(t, box), fit = equations.fit_active_set(t, box);
    EXPECT_TRUE(fit.converged);
    EXPECT_LE(fit.residual_norm, rough.residual_norm * (1 + 1e-12));
    const at::Tensor a64 = a.to(at::kDouble), w = fit.solution.to(at::kDouble);
    const at::Tensor gradient = at::mv(a64.t(), at::mv(a64, w) - y.to(at::kDouble));
    const double scale = at::mv(a64.t(), y.to(at::kDouble)).abs().max().item<double>();
    for (int64_t j = 0; j < t; ++j) {
      const double value = w[j].item<double>(), slope = gradient[j].item<double>() / scale;
      EXPECT_GE(value, box.lower - 1e-7);
      EXPECT_LE(value, *box.upper + 1e-6);
      EXPECT_TRUE(value <= box.lower + 1e-6 || slope < 1e-5) << j << ": " << slope;
      EXPECT_TRUE(value >= *box.upper - 1e-6 || slope > -1e-5) << j << ": " << slope;
    }
  }
}

TEST(ActiveSet, InsideTheBoxItIsPlainLeastSquares) {
  const at::Tensor a = matrix_of_condition(50, 8, 10, 41);
  const at::Tensor y = normal({50}, 42).to(at::kFloat);
  BoxSettings box;
  box.lower = -1e6;
  box.upper = 1e6;
  EXPECT_LT(
      relative_error(NormalEquations(a, y).fit_active_set(8, box).solution, svd_solution(a, y.unsqueeze(1)).squeeze(1)),
      1e-6);
}

}  // namespace
}  // namespace kvc
