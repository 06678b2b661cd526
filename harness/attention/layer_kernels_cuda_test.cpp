// The kernels between a layer's products: their own text, run on the host (harness/testing/cuda_emulation.h), against
// float64 operations.
#include "harness/testing/cuda_emulation.h"
// The kernels, under the emulation's names.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>

#include "harness/attention/cuda_layer_glue.h"
#include "harness/attention/layer_kernels_cuda.cu"

namespace kvc::emulated_cuda {
namespace {

// float32 arithmetic; bfloat16 results are rounded once, to 2^-9 of numbers of a few units.
double tolerance(at::ScalarType dtype) {
  return dtype == at::kFloat ? 5e-6 : 2e-2;
}

void expect_near(const at::Tensor& got, const at::Tensor& want) {
  ASSERT_EQ(got.sizes(), want.sizes());
  if (got.numel() == 0) return;
  EXPECT_LT((got.to(at::kDouble) - want).abs().max().item<double>(), tolerance(got.scalar_type()));
}

at::Tensor normed(const at::Tensor& rows, const at::Tensor& weight, double eps) {
  if (!weight.defined()) return rows;
  return rows * at::rsqrt(rows.square().mean(-1, true) + eps) * weight.to(at::kDouble);
}

at::Tensor rotated(const at::Tensor& heads, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = heads.size(2) / 2;
  const at::Tensor h = heads.narrow(2, 0, half), k = heads.narrow(2, half, half);
  return at::cat({h * cos - k * sin, k * cos + h * sin}, 2);
}

TEST(LayerKernels, RotateEveryHeadOnce) {
  at::manual_seed(3);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [n, n_query, n_kv, d] : {std::array<int64_t, 4>{5, 6, 2, 16},
                                              {1, 4, 1, 128},
                                              {3, 3, 3, 80},
                                              {2, 16, 1, 6},
                                              {7, 2, 0, 64},
                                              {0, 4, 2, 16}}) {
      for (const bool norms : {false, true}) {
        const at::Tensor qkv = at::randn({n, (n_query + 2 * n_kv) * d}).to(dtype);
        const at::Tensor q_norm = norms ? (at::randn({d}) * 0.1 + 1).to(dtype) : at::Tensor();
        const at::Tensor k_norm = norms ? (at::randn({d}) * 0.1 + 1).to(dtype) : at::Tensor();
        const at::Tensor angles = at::rand({40, d / 2}) * 6, cos = at::cos(angles), sin = at::sin(angles);
        const at::Tensor positions = at::randint(40, {n}, at::kLong);
        const auto found = rotate(qkv, n_query, n_kv, q_norm, k_norm, 1e-6, cos, sin, positions, nullptr);
        ASSERT_TRUE(found);
        const at::Tensor heads = qkv.to(at::kDouble).view({n, n_query + 2 * n_kv, d});
        const at::Tensor c = cos.index_select(0, positions).to(at::kDouble).unsqueeze(1),
                         s = sin.index_select(0, positions).to(at::kDouble).unsqueeze(1);
        expect_near(found->first, rotated(normed(heads.narrow(1, 0, n_query), q_norm, 1e-6), c, s));
        expect_near(found->second, rotated(normed(heads.narrow(1, n_query, n_kv), k_norm, 1e-6), c, s));
      }
    }
  }
}

TEST(LayerKernels, AddAndNormalise) {
  at::manual_seed(4);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [n, size] : {std::pair<int64_t, int64_t>{3, 48}, {1, 1000}, {2, 129}, {4, 1}, {0, 8}}) {
      const at::Tensor a = at::randn({n, size}).to(dtype), b = at::randn({n, size}).to(dtype),
                       weight = at::randn({size}).to(dtype);
      const auto found = add_and_norm(a, b, weight, 1e-5, nullptr);
      ASSERT_TRUE(found);
      EXPECT_TRUE(at::equal(found->first, a + b));  // rounded once, as LibTorch rounds it
      expect_near(found->second, normed((a + b).to(at::kDouble), weight, 1e-5));
    }
  }
}

TEST(LayerKernels, Gate) {
  at::manual_seed(5);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [n, size] : {std::pair<int64_t, int64_t>{3, 96}, {1, 500}, {5, 1}, {0, 8}}) {
      at::Tensor gate_up = at::randn({n, 2 * size}).to(dtype);
      if (n > 0) gate_up[0][0] = -100;  // exp(100) is no float: the gate is 0
      const auto found = gate(gate_up, nullptr);
      ASSERT_TRUE(found);
      const at::Tensor g = gate_up.narrow(1, 0, size).to(at::kDouble),
                       u = gate_up.narrow(1, size, size).to(at::kDouble);
      expect_near(*found, g / (1 + at::exp(-g)) * u);
    }
  }
}

// What they launch and move, by their shapes.
TEST(LayerKernels, CountLaunchesAndBytes) {
  const at::TensorOptions halves = at::TensorOptions().dtype(at::kBFloat16);
  layer_launches() = {};
  const int64_t n = 2, hidden = 64, ffn = 96, d = 16;
  const at::Tensor angles = at::zeros({8, d / 2});
  rotate(at::zeros({n, 8 * d}, halves), 4, 2, {}, {}, 0, angles, angles, at::zeros({n}, at::kLong), nullptr);
  add_and_norm(at::zeros({n, hidden}, halves), at::zeros({n, hidden}, halves), at::zeros({hidden}, halves), 0, nullptr);
  gate(at::zeros({n, 2 * ffn}, halves), nullptr);
  EXPECT_EQ(layer_launches().launches, 3);
  EXPECT_EQ(layer_launches().bytes, n * (2 * 6 * 2 + 4) * d + 4 * n * hidden * 2 + 3 * n * ffn * 2);
}

TEST(LayerKernels, OtherTensorsAreNotTaken) {
  const at::Tensor rows = at::zeros({2, 8});
  EXPECT_FALSE(gate(rows.to(at::kHalf), nullptr));
  EXPECT_FALSE(gate(rows.t(), nullptr));
  EXPECT_FALSE(add_and_norm(rows, rows.to(at::kBFloat16), rows[0], 0, nullptr));
  EXPECT_FALSE(add_and_norm(rows, rows, rows[0].to(at::kBFloat16), 0, nullptr));
}

}  // namespace
}  // namespace kvc::emulated_cuda
