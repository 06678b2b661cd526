// Many Cholesky factors at once against LibTorch's of each.
#include "harness/math/block_cholesky.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace kvc {
namespace {

at::Tensor positive(int64_t heads, int64_t t, std::uint64_t seed) {
  const at::Tensor a =
      at::randn({heads, 2 * t, t}, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kDouble));
  return at::bmm(a.transpose(1, 2), a) / static_cast<double>(t);
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>() / b.abs().max().item<double>();
}

TEST(BlockCholesky, FactorsInversesAndSolutionsAreThoseOfEachAlone) {
  for (const int64_t t : {1, 5, 127, 128, 129, 300}) {
    const at::Tensor matrices = positive(3, t, 4), b = positive(3, t, 5).narrow(2, 0, std::min<int64_t>(t, 7));
    const BlockCholesky blocks(matrices.clone());
    const at::Tensor want = at::linalg_cholesky(matrices);
    EXPECT_FALSE(blocks.failed().any().item<bool>());
    EXPECT_LT(distance(blocks.diagonal(), want.diagonal(0, 1, 2)), 1e-12) << t;
    EXPECT_LT(distance(at::bmm(matrices, blocks.solve(b)), b), 1e-9) << t;
    const at::Tensor unit = at::eye(t, matrices.options()).expand({3, t, t});
    EXPECT_LT(distance(at::bmm(blocks.inverse_factors(), want), unit), 1e-10) << t;
  }
}

TEST(BlockCholesky, Float32AndViewsOfLargerTables) {
  const at::Tensor wide = at::zeros({2, 200, 260}, at::kFloat), b = positive(2, 200, 8).narrow(2, 0, 3).to(at::kFloat);
  const at::Tensor view = wide.narrow(2, 30, 200), matrices = positive(2, 200, 7).to(at::kFloat);
  view.copy_(matrices);
  EXPECT_LT(distance(at::bmm(matrices, BlockCholesky(view).solve(b)), b), 1e-3);
  EXPECT_EQ(wide.narrow(2, 0, 30).abs().max().item<float>(), 0) << "columns beside the view were written";
}

TEST(BlockCholesky, OneThatIsNotPositiveDefiniteSpoilsNoOther) {
  at::Tensor matrices = positive(3, 150, 4);
  const at::Tensor b = positive(3, 150, 5), alone = BlockCholesky(matrices.clone()).solve(b);
  matrices[1][140][140] = -1.0;
  const BlockCholesky blocks(matrices.clone());
  EXPECT_FALSE(blocks.failed()[0].item<bool>());
  EXPECT_TRUE(blocks.failed()[1].item<bool>());
  EXPECT_TRUE(at::equal(blocks.solve(b)[0], alone[0]));
  EXPECT_TRUE(at::equal(blocks.solve(b)[2], alone[2]));
}

}  // namespace
}  // namespace kvc
