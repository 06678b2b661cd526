// Attention, scores, fits and picks on a GPU and on the CPU, without a model.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "harness/attention/device_pursuit_kernels.h"
#include "harness/attention/flash_attention.h"
#include "harness/attention/ragged_attention.h"
#include "harness/attention/ragged_attention_gpu.h"
#include "harness/math/batched_least_squares.h"
#include "harness/math/device_pursuit.h"
#include "harness/math/float_product.h"
#include "harness/math/least_squares.h"
#include "harness/testing/flash_stand_in.h"
#include "harness/testing/gpu/gpu_test_device.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

// --- attention ---

struct AttentionScene {
  at::Tensor queries, keys, values;
  LayerKv prefix;
  std::vector<int64_t> lengths, offsets = {0};
  TailView tails() const { return {keys, values, lengths, offsets}; }
};

AttentionScene attention_scene(at::ScalarType dtype, int64_t group, int64_t d, const std::vector<int64_t>& heads,
                               const std::vector<int64_t>& lengths, const std::vector<int64_t>& news) {
  at::manual_seed(7);
  AttentionScene s;
  s.lengths = lengths;
  int64_t capacity = 1;
  for (size_t b = 0; b < news.size(); ++b) {
    s.offsets.push_back(s.offsets.back() + news[b]);
    capacity = std::max(capacity, lengths[b] + news[b]);
  }
  s.prefix.head_offsets = {0};
  for (const int64_t n : heads) s.prefix.head_offsets.push_back(s.prefix.head_offsets.back() + n);
  const auto n_heads = static_cast<int64_t>(heads.size()), batch = static_cast<int64_t>(lengths.size());
  s.queries = at::randn({s.offsets.back(), n_heads * group, d}).to(dtype);
  s.prefix.keys = at::randn({s.prefix.n_entries(), d}).to(dtype);
  s.prefix.values = at::randn({s.prefix.n_entries(), d}).to(dtype);
  s.prefix.bias = at::randn({s.prefix.n_entries()});
  if (s.prefix.n_entries() > 2) s.prefix.bias[1] = -INFINITY;
  s.keys = at::randn({batch, n_heads, capacity, d}).to(dtype);
  s.values = at::randn({batch, n_heads, capacity, d}).to(dtype);
  return s;
}

TEST_F(Gpu, AttentionEqualsTheCpus) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const AttentionScene scenes[] = {
        attention_scene(dtype, 3, 64, {700, 0, 33}, {0, 9, 40}, {1, 1, 1}),      // a step
        attention_scene(dtype, 4, 128, {9000, 10}, {0}, {1}),                    // more than the most pieces
        attention_scene(dtype, 7, 80, {65}, {2, 0, 5}, {30, 0, 11}),             // questions
        attention_scene(dtype, 2, 256, {150, 150}, {0, 3}, {40, 1}),             // the widest heads
        attention_scene(dtype, 4, 64, {0, 0}, {100}, {600}),                     // a document's chunk
        attention_scene(dtype, 4, 64, {200, 50}, {3, 0, 7, 1}, {2, 300, 5, 1}),  // one long among short ones
        attention_scene(dtype, 1, 20, {37, 2}, std::vector<int64_t>(40, 3), std::vector<int64_t>(40, 1)),
    };
    for (const AttentionScene& s : scenes) {
      LayerKv prefix = s.prefix;
      prefix.keys = there(prefix.keys);
      prefix.values = there(prefix.values);
      prefix.bias = there(prefix.bias);
      const at::Tensor queries = there(s.queries);
      const TailView tails{there(s.keys), there(s.values), s.lengths, s.offsets};
      const double most = dtype == at::kFloat ? 5e-5 : 2e-2;
      const PartialAttention before = prefix_attention(queries, prefix), want = prefix_attention(s.queries, s.prefix);
      expect_near(before.output, want.output, most, "prefix");
      expect_near(before.log_sum_exp, want.log_sum_exp, most, "prefix's log-sum-exp");
      const PartialAttention tail = tail_attention(queries, tails);
      const PartialAttention want_tail = tail_attention(s.queries, s.tails());
      expect_near(tail.output, want_tail.output, most, "tail");
      expect_near(tail.log_sum_exp, want_tail.log_sum_exp, most, "tail's log-sum-exp");
      const at::Tensor both = context_attention(queries, prefix, tails);
      EXPECT_EQ(both.scalar_type(), dtype);
      EXPECT_EQ(both.device().type(), device().type());
      expect_near(both, context_attention(s.queries, s.prefix, s.tails()), most, "both");
    }
  }
}

// The library's own kernels against what tests take for them.
TEST_F(Gpu, FlashAttentionKeepsItsPromises) {
  if (device_name() != "cuda") GTEST_SKIP() << "the library's kernels run on a GPU only";
  for (const int64_t group : {1, 2, 3, 4, 7, 8, 16}) {
    for (const int64_t d : {64, 80, 128, 256}) {
      const AttentionScene s = attention_scene(at::kBFloat16, group, d, {300, 0, 33, 2100}, {9}, {40});
      LayerKv here = s.prefix;
      here.bias = at::Tensor();
      LayerKv prefix{there(here.keys), there(here.values), {}, here.head_offsets};
      const PartialAttention got = flash_prefix(there(s.queries), prefix, &library_flash_attention);
      const PartialAttention want = flash_prefix(s.queries, here, &naive_flash_attention);
      expect_near(got.output, want.output, 1e-2, "prefix");
      expect_near(got.log_sum_exp, want.log_sum_exp, 1e-4, "prefix's log-sum-exp");
      const PartialAttention tail =
          flash_tail(there(s.queries), there(s.keys), there(s.values), 9, &library_flash_attention);
      const PartialAttention want_tail = flash_tail(s.queries, s.keys, s.values, 9, &naive_flash_attention);
      expect_near(tail.output, want_tail.output, 1e-2, "tail");
      expect_near(tail.log_sum_exp, want_tail.log_sum_exp, 1e-4, "tail's log-sum-exp");
    }
  }
}

// --- fits ---

TEST_F(Gpu, ScoresFitsAndPicksAreTheCpus) {
  at::manual_seed(5);
  const at::Tensor keys = at::randn({400, 64}), values = at::randn({400, 64});
  const at::Tensor queries = at::randn({700, 64}) + keys.narrow(0, 0, 7).repeat({100, 1}) * 0.3;
  const AttentionSummary want = summarize_attention(queries, keys, {}, KeyScore::kRms, values);
  const AttentionSummary got =
      summarize_attention(there(queries), there(keys), {}, KeyScore::kRms, there(values), {}, /*by_products=*/true);
  expect_near(got.scores, want.scores, 1e-4, "scores");
  expect_near(got.row_sum, want.row_sum, 1e-4, "row sums");
  expect_near(got.output, want.output, 1e-4, "output");
  // In bfloat16, of heads together and with a bias: on a GPU by its tensor cores.
  const auto half = [](const at::Tensor& one) { return at::stack({one, one.flip(0)}).to(at::kBFloat16); };
  const at::Tensor half_queries = half(queries), half_keys = half(keys), half_values = half(values);
  const at::Tensor bias = at::randn({2, 400});
  for (const KeyScore score : {KeyScore::kRms, KeyScore::kMax, KeyScore::kMean}) {
    const AttentionSummary heads =
        summarize_heads(there(half_queries), there(half_keys), there(bias), score, there(half_values));
    const AttentionSummary again =
        summarize_heads(there(half_queries), there(half_keys), there(bias), score, there(half_values));
    EXPECT_TRUE(at::equal(heads.scores, again.scores));
    EXPECT_TRUE(at::equal(heads.output, again.output));
    for (int64_t h = 0; h < 2; ++h) {
      const AttentionSummary one = summarize_attention(half_queries[h], half_keys[h], bias[h], score, half_values[h]);
      expect_near(heads.scores[h], one.scores, 1e-4, "scores of a head in bfloat16");
      expect_near(heads.row_max[h], one.row_max, 1e-4, "row maxima in bfloat16");
      expect_near(heads.row_sum[h], one.row_sum, 1e-4, "row sums in bfloat16");
      expect_near(heads.output[h], one.output, 1e-2, "output in bfloat16");
    }
  }
  MatchingPursuit host(queries, keys, {}, want.row_max, want.row_sum, {});
  host.run(80);
  const auto twice = [](const at::Tensor& one) { return at::stack({one, one.flip(0)}); };
  const at::Tensor mass = there(at::stack({want.row_sum, want.row_sum.flip(0)}));
  const at::Tensor most_of = there(at::stack({want.row_max, want.row_max.flip(0)}));
  // By own kernels, where there are some, and by LibTorch's operations.
  for (const PursuitKernels* kernels :
       {gpu::pursuit_kernels(mass.device()), static_cast<const PursuitKernels*>(nullptr)}) {
    DevicePursuit pursuit(there(queries), there(keys), {}, there(want.row_max), there(want.row_sum), {}, kernels);
    pursuit.run(80);
    EXPECT_EQ(pursuit.picks(80).order, host.picks(80).order);
    // Several heads at once, some choices checked and taken back; the same bits again.
    std::vector<PursuitPicks> before;
    for (int run = 0; run < 2; ++run) {
      DevicePursuits several(there(twice(queries)), there(at::stack({keys, keys})), {}, most_of, mass, {}, {65, 32},
                             kernels);
      several.run({80, 33});
      const std::vector<PursuitPicks> picks = several.picks({80, 33});
      EXPECT_EQ(picks[0].order, host.picks(80).order);
      EXPECT_EQ(picks[1].order, host.picks(33).order);
      for (size_t h = 0; h < before.size(); ++h) EXPECT_EQ(picks[h].weights, before[h].weights);
      before = picks;
    }
  }
  const at::Tensor a = at::softmax(queries.narrow(1, 0, 40), 1), b = values.repeat({2, 1}).narrow(0, 0, 700);
  for (const FitRoute route : {FitRoute::kRefined, FitRoute::kDouble}) {
    expect_near(least_squares(there(a), there(b), route).solution, least_squares(a, b, FitRoute::kDouble).solution,
                1e-4, "least squares");
    const BatchedSolution both = batched_least_squares(there(twice(a)), there(twice(b)), route);
    EXPECT_TRUE(both.trusted.all().item<bool>());
    expect_near(both.solution[1], least_squares(a, b, FitRoute::kDouble).solution, 1e-4, "least squares of two heads");
  }
}

// Each own kernel once or twice, small enough for compute-sanitizer.
TEST_F(Gpu, KernelsOnSmallShapes) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const AttentionScene s = attention_scene(dtype, 4, 64, {70, 0, 33}, {0, 9}, {1, 3});
    LayerKv prefix = s.prefix;
    prefix.keys = there(prefix.keys);
    prefix.values = there(prefix.values);
    prefix.bias = there(prefix.bias);
    const TailView tails{there(s.keys), there(s.values), s.lengths, s.offsets};
    expect_near(context_attention(there(s.queries), prefix, tails), context_attention(s.queries, s.prefix, s.tails()),
                dtype == at::kFloat ? 5e-5 : 2e-2, "attention");
    const at::Tensor queries = at::randn({2, 70, 64}).to(dtype), keys = at::randn({2, 50, 64}).to(dtype);
    const at::Tensor values = at::randn({2, 50, 64}).to(dtype), bias = at::randn({2, 50});
    const AttentionSummary heads =
        summarize_heads(there(queries), there(keys), there(bias), KeyScore::kRms, there(values));
    const AttentionSummary want = summarize_attention(queries[1], keys[1], bias[1], KeyScore::kRms, values[1]);
    expect_near(heads.scores[1], want.scores, 1e-4, "scores");
    expect_near(heads.output[1], want.output, dtype == at::kFloat ? 1e-4 : 1e-2, "output");
    DevicePursuits pursuits(there(queries), there(keys), there(bias), heads.row_max, heads.row_sum, {}, {},
                            gpu::pursuit_kernels(device()));
    pursuits.run({4, 2});
    MatchingPursuit host(queries[1], keys[1], bias[1], want.row_max, want.row_sum, {});
    host.run(2);
    EXPECT_EQ(pursuits.picks({4, 2})[1].order, host.picks(2).order);
  }
}

}  // namespace
}  // namespace kvc
