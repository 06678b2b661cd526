// What Attention Matching asks of a GPU at a published shape: launches and waits, counted on a pretended one. Shapes,
// dtypes and branches of a GPU run for real; numbers are judged elsewhere, on the CPU.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "harness/api/pack_compaction.h"
#include "harness/core/registry.h"
#include "harness/math/device_pursuit.h"
#include "harness/math/least_squares.h"
#include "harness/testing/pretended_gpu.h"
#include "methods/parts/batched_fit.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

at::TensorOptions halves() {
  return at::TensorOptions().dtype(at::kBFloat16).device(at::kCUDA, 0);
}

// Heads of Qwen3-4B over 60,000 entries.
std::string names_of(const pretended::GpuCounts& counts) {
  std::string text;
  for (const auto& [name, n] : counts.by_name) text += name + " " + std::to_string(n) + ", ";
  return text;
}

std::vector<HeadProblem> heads(int64_t count, int64_t n_queries, bool bias) {
  std::vector<HeadProblem> problems;
  for (int64_t h = 0; h < count; ++h) {
    HeadProblem problem;
    problem.keys = at::empty({60'000, 128}, halves());
    problem.values = at::empty({60'000, 128}, halves());
    problem.queries = at::empty({n_queries, 128}, halves());
    if (bias) problem.bias = at::empty({60'000}, halves().dtype(at::kFloat));
    problems.push_back(std::move(problem));
  }
  return problems;
}

class GpuBatches : public testing::Test {
 protected:
  void SetUp() override {
    if (!pretended::install_gpu()) GTEST_SKIP() << "this LibTorch has CUDA: nothing is pretended beside it";
    set_gpu_fit_route(FitRoute::kDouble);  // as on A100, H100, H200
    (void)pretended::take_gpu_counts();
  }
  void TearDown() override { set_gpu_fit_route(FitRoute::kRefined); }
  const c10::InferenceMode inference_;
};

// A whole batch of an H200's memory: 44 heads with 4,096 queries, 18 with 50,000.
TEST_F(GpuBatches, ScoresAndFitsWaitTwiceABatch) {
  const auto method = Registry<CompactionMethod>::instance().create("am_highest_attention", Json::object());
  const auto& per_head = dynamic_cast<const PerHeadMethod&>(*method);
  EXPECT_TRUE(per_head.fits_heads_together(c10::Device(c10::kCUDA, 0)));
  for (const bool bias : {false, true}) {
    for (const int64_t n : {4096, 50'000}) {
      const int64_t count = n == 4096 ? 44 : 18;
      const std::vector<HeadProblem> problems = heads(count, n, bias);
      const std::vector<std::vector<int64_t>> targets(problems.size(), {3000});
      const std::vector<HeadResult> made = per_head.fit_heads(problems, targets);
      const pretended::GpuCounts counts = pretended::take_gpu_counts();
      ASSERT_EQ(made.size(), problems.size());
      const HeadFit& fit = made[3].fits[0];
      EXPECT_EQ(fit.keys.sizes(), at::IntArrayRef({3000, 128}));
      EXPECT_EQ(fit.values.scalar_type(), at::kBFloat16);
      EXPECT_TRUE(fit.values.is_cuda() && fit.bias.is_cuda());
      EXPECT_EQ(counts.waits, 2) << "not one batch, or the host waits inside it";
      EXPECT_LE(counts.launches, n == 4096 ? 2900 : 3700) << names_of(counts);
      // The table of kept entries and the fits; no logits over all entries (12 GB each time with 50,000 queries).
      EXPECT_LE(static_cast<double>(counts.bytes), static_cast<double>(count) * (n == 4096 ? 1e10 : 4.2e10));
      fmt::print("{} heads, {} queries{}: {} launches, {:.3g} bytes a head\n", count, n, bias ? ", bias" : "",
                 counts.launches, static_cast<double>(counts.bytes) / static_cast<double>(count));
    }
  }
}

// A wait for 32 choices of all heads, and the same launches whatever their number.
TEST_F(GpuBatches, PursuitsWaitOnceACheck) {
  const int64_t picks = 3008;
  std::vector<int64_t> launches;
  for (const int64_t count : {1, 12}) {
    const at::Tensor mass = at::empty({count, 4096, 1}, halves().dtype(at::kFloat));
    DevicePursuits pursuits(at::empty({count, 4096, 128}, halves()), at::empty({count, 60'000, 128}, halves()), {},
                            mass, mass, {});
    (void)pretended::take_gpu_counts();
    pursuits.run(std::vector<int64_t>(static_cast<size_t>(count), picks));
    const pretended::GpuCounts counts = pretended::take_gpu_counts();
    EXPECT_LE(counts.waits, picks / 32 + 4);  // fewer choices before the first checks
    EXPECT_LE(counts.launches, picks * 67) << names_of(counts);
    launches.push_back(counts.launches);
    fmt::print("pursuit of {} heads: {:.1f} launches a pick, {:.4g} bytes a pick and head\n", count,
               static_cast<double>(counts.launches) / static_cast<double>(picks),
               static_cast<double>(counts.bytes) / static_cast<double>(picks * count));
  }
  EXPECT_EQ(launches[0], launches[1]);
}

}  // namespace
}  // namespace kvc
