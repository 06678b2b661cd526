#include "harness/math/float_product.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

namespace kvc {
namespace {

// bfloat16 products are exact in float32, so that only sums round: far below the 2^-9 of a bfloat16 result.
TEST(FloatProduct, IsNotRoundedToTheInputsType) {
  at::manual_seed(3);
  const at::Tensor a = at::randn({7, 300}).to(at::kBFloat16), b = at::randn({300, 11}).to(at::kBFloat16);
  const at::Tensor got = float_product(a, b), want = at::mm(a.to(at::kDouble), b.to(at::kDouble));
  ASSERT_EQ(got.scalar_type(), at::kFloat);
  EXPECT_LT((got.to(at::kDouble) - want).abs().max().item<double>(), 1e-4);
  EXPECT_GT((got - got.to(at::kBFloat16).to(at::kFloat)).abs().max().item<double>(), 1e-3) << "the scene tells nothing";
}

TEST(FloatProduct, TakesBatches) {
  at::manual_seed(4);
  const at::Tensor a = at::randn({3, 5, 20}).to(at::kBFloat16), b = at::randn({3, 20, 4}).to(at::kBFloat16);
  const at::Tensor got = float_product(a, b);
  for (int64_t h = 0; h < 3; ++h) {
    EXPECT_LT((got[h] - float_product(a[h], b[h])).abs().max().item<double>(), 1e-5);
  }
}

TEST(FloatProduct, SumsOnAGpuStayFloat32) {
  at::Context& context = at::globalContext();
  const bool tf32 = context.allowTF32CuBLAS();
  context.setAllowBF16ReductionCuBLAS(true);
  context.setAllowTF32CuBLAS(true);
  keep_products_exact();
  EXPECT_NE(context.allowBF16ReductionCuBLAS(), at::CuBLASReductionOption::AllowReducedPrecisionWithSplitK);
  EXPECT_NE(context.allowFP16ReductionCuBLAS(), at::CuBLASReductionOption::AllowReducedPrecisionWithSplitK);
  EXPECT_FALSE(context.allowTF32CuBLAS());
  context.setAllowTF32CuBLAS(tf32);
}

}  // namespace
}  // namespace kvc
