// What Attention Matching asks of a GPU at a published shape: launches and waits, counted on a pretended one. Shapes,
// dtypes and branches of a GPU run for real; numbers are judged elsewhere, on the CPU.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "harness/api/pack_compaction.h"
#include "harness/api/settle_budgets.h"
#include "harness/attention/device_pursuit_kernels.h"
#include "harness/core/registry.h"
#include "harness/math/device_pursuit.h"
#include "harness/math/least_squares.h"
#include "harness/testing/pretended_gpu.h"
#include "harness/testing/tiny_model.h"
#include "methods/batched_fit.h"
#include "methods/parts/key_selection.h"
#include "methods/parts/merging.h"
#include "methods/parts/running_sums.h"

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

// The budget of two layers of eight heads, shared by scores.
SettledBudgets settle_two_layers(const PerHeadMethod& method, const std::vector<HeadProblem>& all) {
  std::vector<LayerKv> layers(2);
  for (LayerKv& layer : layers) {
    layer.keys = layer.values = at::empty({8 * 60'000, 128}, halves());
    for (int64_t h = 0; h <= 8; ++h) layer.head_offsets.push_back(h * 60'000);
  }
  const KvCache cache(layers, 60'000);
  const Model model = tiny_model(1);
  HeadBudget budget;
  budget.target_len = {2, std::vector<int64_t>(8, 3000)};
  budget.adaptive = AdaptiveShare{};
  (void)pretended::take_gpu_counts();
  return settle_budgets(
      {model, {}, cache, {0, 0}, nullptr, {budget}, 1}, 0, 2,
      [&](int64_t layer, int64_t head) { return all[static_cast<size_t>(8 * layer + head)]; },
      [&](const std::vector<HeadProblem>& problems) { return method.score_heads(problems); });
}

// Scores of all heads and what settles a budget by them: of attention a kernel for the rows and one for the columns of
// each layer, and one wait for all.
TEST_F(GpuBatches, ScoresOfALayerAreOneBatch) {
  std::vector<HeadProblem> all = heads(16, 4096, false);
  for (HeadProblem& problem : all) {
    problem.window_queries = [](int64_t n_tokens) { return at::empty({4 * n_tokens, 128}, halves()); };
  }
  const std::map<std::string, int64_t> kernels = {{"am_highest_attention", 4},
                                                  {"am_omp", 4},
                                                  {"kvzip", 4},
                                                  {"snapkv", 4},
                                                  {"h2o", 4},
                                                  {"tova", 4},
                                                  {"critical_kv", 4},
                                                  {"grkv", 4},
                                                  {"key_norm", 0},
                                                  {"keydiff", 0},
                                                  {"lagkv", 0},
                                                  {"curdkv", 0},
                                                  {"leverage", 0}};
  for (const auto& [name, n_kernels] : kernels) {
    const auto method = Registry<CompactionMethod>::instance().create(name, Json::object());
    const SettledBudgets settled = settle_two_layers(dynamic_cast<const PerHeadMethod&>(*method), all);
    pretended::GpuCounts counts = pretended::take_gpu_counts();
    EXPECT_EQ(counts.waits, 1) << name;
    EXPECT_EQ(counts.by_name["own kernel"], n_kernels) << name << ": " << names_of(counts);
    EXPECT_EQ(settled.scores.size(), 16U);
    fmt::print("scores of {}: {} launches for 16 heads\n", name, counts.launches);
  }
}

// Fits then leave out the columns.
TEST_F(GpuBatches, AdaptiveBudgetsScoreOnce) {
  const auto method = Registry<CompactionMethod>::instance().create("am_highest_attention", Json::object());
  const auto& per_head = dynamic_cast<const PerHeadMethod&>(*method);
  const std::vector<HeadProblem> all = heads(16, 4096, false);
  const SettledBudgets settled = settle_two_layers(per_head, all);
  (void)pretended::take_gpu_counts();
  std::vector<HeadProblem> scored = all;
  for (size_t i = 0; i < scored.size(); ++i) scored[i].scores = settled.scores_of(i);
  (void)per_head.fit_heads(scored, std::vector<std::vector<int64_t>>(16, {3000}));
  pretended::GpuCounts counts = pretended::take_gpu_counts();
  EXPECT_EQ(counts.by_name["own kernel"], 1) << names_of(counts);
}

// By this project's kernels, and by LibTorch's operations for builds that have none.
std::vector<const PursuitKernels*> both_ways() {
  return {gpu::pursuit_kernels(c10::Device(c10::kCUDA, 0)), nullptr};
}

// Heads of their own number of picks, as budgets give them, and weights solved for every second iteration.
TEST_F(GpuBatches, PursuitsOfUnequalTargetsWaitOnceACheckToo) {
  for (const int64_t interval : {1, 2}) {
    const int64_t picks = 3008;
    const at::Tensor mass = at::empty({3, 4096, 1}, halves().dtype(at::kFloat));
    PursuitSettings settings;
    settings.nnls_interval = interval;
    for (const PursuitKernels* kernels : both_ways()) {
      DevicePursuits pursuits(at::empty({3, 4096, 128}, halves()), at::empty({3, 60'000, 128}, halves()), {}, mass,
                              mass, settings, {}, kernels);
      (void)pretended::take_gpu_counts();
      pursuits.run({picks, 1001, 10});
      const pretended::GpuCounts counts = pretended::take_gpu_counts();
      EXPECT_LE(counts.waits, picks / 32 + 4);
      EXPECT_LE(counts.launches, picks * (kernels != nullptr ? 8 : 81)) << names_of(counts);
      fmt::print("pursuit of unequal heads{}: {:.1f} launches a pick\n", kernels != nullptr ? "" : ", no kernels",
                 static_cast<double>(counts.launches) / static_cast<double>(picks));
    }
  }
}

// A wait for 32 choices of all heads, and the same launches whatever their number.
TEST_F(GpuBatches, PursuitsWaitOnceACheck) {
  const int64_t picks = 3008;
  for (const PursuitKernels* kernels : both_ways()) {
    std::vector<int64_t> launches;
    for (const int64_t count : {1, 12}) {
      const at::Tensor mass = at::empty({count, 4096, 1}, halves().dtype(at::kFloat));
      DevicePursuits pursuits(at::empty({count, 4096, 128}, halves()), at::empty({count, 60'000, 128}, halves()), {},
                              mass, mass, {}, {}, kernels);
      (void)pretended::take_gpu_counts();
      pursuits.run(std::vector<int64_t>(static_cast<size_t>(count), picks));
      pretended::GpuCounts counts = pretended::take_gpu_counts();
      EXPECT_LE(counts.waits, picks / 32 + 4);  // fewer choices before the first checks
      EXPECT_LE(counts.launches, picks * (kernels != nullptr ? 8 : 67)) << names_of(counts);
      const double bytes = static_cast<double>(counts.bytes) / static_cast<double>(picks * count);
      if (kernels != nullptr) {
        EXPECT_NEAR(static_cast<double>(counts.by_name["own kernel"]), 6.0 * static_cast<double>(picks), 400);
        EXPECT_LT(bytes, 1.5e8);
      }
      launches.push_back(counts.launches);
      fmt::print("pursuit of {} heads{}: {:.1f} launches a pick, {:.4g} bytes a pick and head\n", count,
                 kernels != nullptr ? "" : ", no kernels",
                 static_cast<double>(counts.launches) / static_cast<double>(picks), bytes);
    }
    EXPECT_EQ(launches[0], launches[1]);
  }
}

// --- the same bits on every run: no operation whose additions race ---

TEST_F(GpuBatches, ScansOfOneLineAreARace) {
  const at::Tensor line = at::empty({60'000}, halves().dtype(at::kFloat));
  (void)line.cumsum(0);
  (void)line.unsqueeze(1).cumsum(0);
  (void)line.to(at::kLong).cumsum(0);
  EXPECT_EQ(pretended::take_gpu_counts().races, (std::map<std::string, int64_t>{{"aten::cumsum", 2}}));
  EXPECT_EQ(running_sums(line).sizes(), line.sizes());
  EXPECT_EQ(running_sums(line.unsqueeze(1)).sizes(), at::IntArrayRef({60'000, 1}));
  EXPECT_EQ(running_sums(line.view({6000, 10})).sizes(), at::IntArrayRef({6000, 10}));
  EXPECT_TRUE(pretended::take_gpu_counts().races.empty());
}

TEST_F(GpuBatches, RunningSumsHaveTheBitsOfCumsumOnTheCpu) {
  at::manual_seed(3);
  const std::vector<std::vector<int64_t>> shapes = {{25'000}, {25'000, 1}, {900, 7}, {0}, {0, 1}};
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    for (const std::vector<int64_t>& shape : shapes) {
      const at::Tensor values = at::randn(shape, at::TensorOptions(dtype));
      EXPECT_TRUE(at::equal(running_sums(values), values.cumsum(0)));
    }
  }
}

TEST_F(GpuBatches, SumsOfRangesAndChunksAreNoRace) {
  const at::TensorOptions doubles = halves().dtype(at::kDouble), whole = halves().dtype(at::kLong);
  for (const int64_t d : {1, 128}) {
    const at::Tensor bounds = at::empty({300}, whole);
    EXPECT_EQ(range_sums(at::empty({25'000, d}, doubles), bounds, bounds).sizes(), at::IntArrayRef({300, d}));
  }
  const auto method = Registry<CompactionMethod>::instance().create("chunk_kv", {{"scores", {{"method", "key_norm"}}}});
  const HeadProblem problem = heads(1, 4, false).front();
  EXPECT_EQ(dynamic_cast<const PerHeadMethod&>(*method).fit(problem, {1})[0].keys.size(0),
            1);  // indices read back are all 1
  EXPECT_TRUE(pretended::take_gpu_counts().races.empty());
}

}  // namespace
}  // namespace kvc
