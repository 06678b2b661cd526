#include "harness/attention/ragged_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "harness/attention/ragged_attention_cpu.h"
#include "harness/core/error.h"
#include "harness/testing/naive_attention.h"

namespace kvc {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Why these: logits are float32 sums of d products (a few units of 2^-24 of the largest logit), outputs are weighted
// means of values of size 1. In bfloat16 mode kernels may round the weights to 8 bits (relative 2^-9 each, errors of
// random sign), which moves a mean of values of size ~1 by at most 2^-9 times the mean |value|; log-sum-exp is summed
// before the rounding.
double output_tolerance(at::ScalarType dtype) {
  return dtype == at::kFloat ? 5e-6 : 4e-3;
}
constexpr double kLseTolerance = 1e-5;

void expect_close(const PartialAttention& got, const PartialAttention& want, double tolerance, double lse_tolerance) {
  ASSERT_EQ(got.output.scalar_type(), at::kFloat);
  ASSERT_EQ(got.log_sum_exp.scalar_type(), at::kFloat);
  ASSERT_EQ(got.output.sizes(), want.output.sizes());
  ASSERT_EQ(got.log_sum_exp.sizes(), want.log_sum_exp.sizes());
  if (got.output.numel() == 0) return;
  EXPECT_TRUE(got.output.isfinite().all().item<bool>());
  EXPECT_LE((got.output.to(at::kDouble) - want.output).abs().max().item<double>(), tolerance);
  const at::Tensor empty = want.log_sum_exp.eq(-kInfinity);
  EXPECT_TRUE(at::equal(got.log_sum_exp.eq(-kInfinity), empty));
  const at::Tensor difference = (got.log_sum_exp.to(at::kDouble) - want.log_sum_exp).masked_fill(empty, 0.0);
  EXPECT_LE(difference.abs().max().item<double>(), lse_tolerance);
}

LayerKv random_prefix(const std::vector<int64_t>& head_lens, int64_t d, at::ScalarType dtype, bool biased) {
  std::vector<at::Tensor> keys, values, bias;
  for (const int64_t len : head_lens) {
    keys.push_back(at::randn({len, d}).to(dtype));
    values.push_back(at::randn({len, d}).to(dtype));
    bias.push_back(biased ? at::randn({len}) : at::Tensor());
  }
  return pack_heads(keys, values, bias);
}

struct TailCase {
  at::Tensor queries, keys, values;
  std::vector<int64_t> lengths, offsets;

  TailView view() const { return {keys, values, lengths, offsets}; }
  PartialAttention run() const { return tail_attention(queries, view()); }
  PartialAttention judge() const { return naive_tail_attention(queries, view()); }
};

TailCase random_tail(const std::vector<int64_t>& lengths, const std::vector<int64_t>& counts, int64_t n_kv_heads,
                     int64_t group, int64_t d, int64_t spare, at::ScalarType dtype) {
  TailCase tail;
  int64_t longest = 0;
  tail.offsets = {0};
  for (size_t b = 0; b < lengths.size(); ++b) {
    tail.offsets.push_back(tail.offsets.back() + counts[b]);
    longest = std::max(longest, lengths[b] + counts[b]);
  }
  tail.lengths = lengths;
  const std::vector<int64_t> shape{static_cast<int64_t>(lengths.size()), n_kv_heads, longest + spare, d};
  tail.queries = at::randn({tail.offsets.back(), n_kv_heads * group, d}).to(dtype);
  tail.keys = at::randn(shape).to(dtype);
  tail.values = at::randn(shape).to(dtype);
  // Capacity behind the last entry is never read: whatever lies there must not matter.
  tail.keys.slice(2, longest).fill_(std::numeric_limits<float>::quiet_NaN());
  tail.values.slice(2, longest).fill_(std::numeric_limits<float>::quiet_NaN());
  return tail;
}

// Sets KVC_CPU_KERNELS for its lifetime; an empty level unsets it.
class UseKernels {
 public:
  explicit UseKernels(const std::string& level) {
    const char* set = std::getenv("KVC_CPU_KERNELS");
    if (set != nullptr) before_ = set;
    ::setenv("KVC_CPU_KERNELS", level.c_str(), 1);
  }
  ~UseKernels() { ::setenv("KVC_CPU_KERNELS", before_.c_str(), 1); }
  UseKernels(const UseKernels&) = delete;
  UseKernels& operator=(const UseKernels&) = delete;

 private:
  std::string before_;
};

std::vector<std::string> supported_levels() {
  std::vector<std::string> levels;
  for (const std::string_view name : kCpuLevelNames) {
    const UseKernels use{std::string(name)};
    try {
      cpu_attention_kernel(false);
      levels.emplace_back(name);
    } catch (const Error&) {
      break;  // levels rise: the rest is not there either
    }
  }
  return levels;
}

using Kernels = std::tuple<at::ScalarType, std::string>;

class RaggedAttention : public ::testing::TestWithParam<Kernels> {
 protected:
  void SetUp() override { at::manual_seed(23); }

  const at::ScalarType dtype = std::get<0>(GetParam());
  const UseKernels use{std::get<1>(GetParam())};
};

TEST_P(RaggedAttention, PrefixEqualsTheJudge) {
  struct Shape {
    int64_t n, group, d;
    std::vector<int64_t> head_lens;
  };
  const std::vector<Shape> shapes = {{1, 1, 64, {1}},         {1, 3, 64, {700, 1, 0}},  {16, 3, 64, {513, 300, 17}},
                                     {5, 4, 128, {260, 129}}, {37, 2, 16, {50, 0, 33}}, {4, 7, 80, {301}},
                                     {3, 2, 20, {40, 9}},     {70, 1, 64, {129, 255}},  {2, 5, 8, {1025}}};
  for (const Shape& s : shapes) {
    for (const bool biased : {false, true}) {
      const LayerKv prefix = random_prefix(s.head_lens, s.d, dtype, biased);
      const at::Tensor queries = at::randn({s.n, s.group * prefix.n_kv_heads(), s.d}).to(dtype);
      SCOPED_TRACE(::testing::Message() << s.n << " tokens, group " << s.group << ", d " << s.d << ", bias " << biased);
      expect_close(prefix_attention(queries, prefix), naive_prefix_attention(queries, prefix), output_tolerance(dtype),
                   kLseTolerance);
    }
  }
}

TEST_P(RaggedAttention, TailEqualsTheJudge) {
  struct Shape {
    std::vector<int64_t> lengths, counts;
    int64_t n_kv_heads, group, d;
  };
  const std::vector<Shape> shapes = {{{0}, {1}, 1, 1, 64},
                                     {{0}, {300}, 3, 3, 64},
                                     {{0, 5, 600}, {1, 0, 1}, 2, 3, 64},
                                     {{7, 0, 130, 2}, {40, 129, 3, 1}, 2, 2, 128},
                                     {{255, 256, 257}, {1, 2, 30}, 1, 8, 64},
                                     {{0, 9}, {33, 12}, 2, 5, 16},
                                     {{3}, {11}, 2, 2, 20}};
  for (const Shape& s : shapes) {
    const TailCase tail = random_tail(s.lengths, s.counts, s.n_kv_heads, s.group, s.d, 3, dtype);
    SCOPED_TRACE(::testing::Message() << s.lengths.size() << " sequences, group " << s.group << ", d " << s.d);
    expect_close(tail.run(), tail.judge(), output_tolerance(dtype), kLseTolerance);
  }
}

TEST_P(RaggedAttention, NoTokensAndNoEntries) {
  const LayerKv nothing = random_prefix({0, 0}, 64, dtype, false);
  const PartialAttention empty = prefix_attention(at::randn({4, 6, 64}).to(dtype), nothing);
  EXPECT_TRUE(empty.output.eq(0).all().item<bool>());
  EXPECT_TRUE(empty.log_sum_exp.eq(-kInfinity).all().item<bool>());
  const at::Tensor no_queries = at::zeros({0, 6, 64}, dtype);
  EXPECT_EQ(prefix_attention(no_queries, random_prefix({3, 2}, 64, dtype, true)).output.numel(), 0);
  const TailCase tail = random_tail({4, 0}, {0, 0}, 2, 3, 64, 1, dtype);
  EXPECT_EQ(tail.run().output.numel(), 0);
}

// Entries of bias -inf are as good as absent, also when all of a head, or of a whole key block, have it.
TEST_P(RaggedAttention, EntriesOfBiasMinusInfinityAreAbsent) {
  LayerKv prefix = random_prefix({900, 40, 300}, 64, dtype, true);
  prefix.bias.slice(0, 0, 600).fill_(-kInfinity);
  prefix.bias.slice(0, 700, 720).fill_(-kInfinity);
  prefix.bias.slice(0, 900, 940).fill_(-kInfinity);
  const at::Tensor queries = at::randn({5, 6, 64}).to(dtype);
  const PartialAttention got = prefix_attention(queries, prefix);
  expect_close(got, naive_prefix_attention(queries, prefix), output_tolerance(dtype), kLseTolerance);
  EXPECT_TRUE(got.log_sum_exp.slice(1, 2, 4).eq(-kInfinity).all().item<bool>());
  EXPECT_TRUE(got.output.slice(1, 2, 4).eq(0).all().item<bool>());
}

TEST_P(RaggedAttention, LargeLogitsDoNotOverflow) {
  LayerKv prefix = random_prefix({600, 300}, 64, dtype, true);
  prefix.keys = prefix.keys * 64;
  prefix.bias.mul_(1000);
  const at::Tensor queries = at::randn({9, 4, 64}).to(dtype) * 64;
  // Logits reach 2e4, where float32 is spaced 2^-9: errors are relative to that size.
  expect_close(prefix_attention(queries, prefix), naive_prefix_attention(queries, prefix), 3e-2, 2e-2);
}

// Permuting the entries changes nothing but rounding.
TEST_P(RaggedAttention, OrderOfEntriesDoesNotMatter) {
  const LayerKv prefix = random_prefix({777}, 64, dtype, true);
  LayerKv shuffled = prefix;
  const at::Tensor order = at::randperm(777);
  shuffled.keys = prefix.keys.index_select(0, order);
  shuffled.values = prefix.values.index_select(0, order);
  shuffled.bias = prefix.bias.index_select(0, order);
  const at::Tensor queries = at::randn({8, 3, 64}).to(dtype);
  const PartialAttention a = prefix_attention(queries, prefix), b = prefix_attention(queries, shuffled);
  EXPECT_LE((a.output - b.output).abs().max().item<double>(), 2 * output_tolerance(dtype));
  EXPECT_LE((a.log_sum_exp - b.log_sum_exp).abs().max().item<double>(), kLseTolerance);
}

// m copies of an entry are one entry of bias ln m.
TEST_P(RaggedAttention, DuplicatesAreABias) {
  const at::Tensor keys = at::randn({90, 64}).to(dtype), values = at::randn({90, 64}).to(dtype);
  const at::Tensor copies = at::randint(1, 6, {90}, at::kLong);
  const LayerKv once = pack_heads({keys}, {values}, {copies.to(at::kFloat).log()});
  const LayerKv often =
      pack_heads({keys.repeat_interleave(copies, 0)}, {values.repeat_interleave(copies, 0)}, {at::Tensor()});
  const at::Tensor queries = at::randn({8, 3, 64}).to(dtype);
  const PartialAttention a = prefix_attention(queries, once), b = prefix_attention(queries, often);
  EXPECT_LE((a.output - b.output).abs().max().item<double>(), 2 * output_tolerance(dtype));
  EXPECT_LE((a.log_sum_exp - b.log_sum_exp).abs().max().item<double>(), kLseTolerance);
}

// Prefix and tail merged are one context: the concatenation identity as the decoder uses it.
TEST_P(RaggedAttention, PrefixMergedWithTailIsTheWholeContext) {
  const TailCase whole = random_tail({400}, {50}, 2, 3, 64, 0, dtype);
  const at::Tensor keys = whole.keys[0], values = whole.values[0];
  const LayerKv prefix =
      pack_heads({keys[0].slice(0, 0, 300), keys[1].slice(0, 0, 300)},
                 {values[0].slice(0, 0, 300), values[1].slice(0, 0, 300)}, {at::Tensor(), at::Tensor()});
  const PartialAttention tail = tail_attention(
      whole.queries,
      {whole.keys.slice(2, 300).contiguous(), whole.values.slice(2, 300).contiguous(), {100}, whole.offsets});
  expect_close(merge(prefix_attention(whole.queries, prefix), tail), whole.judge(), output_tolerance(dtype),
               kLseTolerance);
}

void expect_same_bits(const PartialAttention& a, const PartialAttention& b) {
  EXPECT_TRUE(at::equal(a.output, b.output));
  EXPECT_TRUE(at::equal(a.log_sum_exp, b.log_sum_exp));
}

PartialAttention rows(const PartialAttention& part, int64_t begin, int64_t end) {
  return {part.output.slice(0, begin, end), part.log_sum_exp.slice(0, begin, end)};
}

TEST_P(RaggedAttention, ChunksOfAPrefillGiveTheSameBits) {
  const TailCase whole = random_tail({0}, {1300}, 2, 3, 64, 5, dtype);
  const PartialAttention at_once = whole.run();
  for (const auto& [begin, end] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 200}, {200, 201}, {201, 1299}, {1299, 1300}}) {
    expect_same_bits(
        tail_attention(whole.queries.slice(0, begin, end), {whole.keys, whole.values, {begin}, {0, end - begin}}),
        rows(at_once, begin, end));
  }
}

TEST_P(RaggedAttention, BatchesGiveTheSameBits) {
  const TailCase tails = random_tail({700, 0, 1200}, {1, 40, 3}, 2, 3, 64, 0, dtype);
  const LayerKv prefix = random_prefix({1500, 40}, 64, dtype, true);
  const PartialAttention tail = tails.run(), head = prefix_attention(tails.queries, prefix);
  for (size_t b = 0; b < 3; ++b) {
    const int64_t begin = tails.offsets[b], end = tails.offsets[b + 1], row = static_cast<int64_t>(b);
    const at::Tensor queries = tails.queries.slice(0, begin, end);
    expect_same_bits(tail_attention(queries, tails.view().slice(row, row + 1)), rows(tail, begin, end));
    expect_same_bits(prefix_attention(queries, prefix), rows(head, begin, end));
  }
}

TEST_P(RaggedAttention, ThreadsGiveTheSameBits) {
  const int threads = at::get_num_threads();
  const TailCase tails = random_tail({700, 5}, {1, 600}, 2, 3, 64, 0, dtype);
  const LayerKv prefix = random_prefix({2500, 1100}, 64, dtype, true);
  const at::Tensor queries = at::randn({3, 6, 64}).to(dtype);
  at::set_num_threads(1);
  const PartialAttention tail = tails.run(), head = prefix_attention(queries, prefix);
  at::set_num_threads(3);
  expect_same_bits(tails.run(), tail);
  expect_same_bits(prefix_attention(queries, prefix), head);
  at::set_num_threads(threads);
}

// Layouts that the kernels do not read go the generic way; queries are copied.
TEST_P(RaggedAttention, StridedTensors) {
  const LayerKv prefix = random_prefix({300, 41}, 64, dtype, true);
  LayerKv strided = prefix;
  strided.keys = at::stack({prefix.keys, prefix.keys}, 1).select(1, 1);
  strided.values = at::stack({prefix.values, prefix.values}, 2).select(2, 0);
  const at::Tensor queries = at::randn({6, 5, 64}).to(dtype).transpose(0, 1);  // (5, 6, 64)
  ASSERT_FALSE(queries.is_contiguous() || strided.keys.is_contiguous() || strided.values.is_contiguous());
  const PartialAttention want = naive_prefix_attention(queries, prefix);
  expect_close(prefix_attention(queries, prefix), want, output_tolerance(dtype), kLseTolerance);
  expect_close(prefix_attention(queries, strided), want, output_tolerance(dtype), kLseTolerance);
}

INSTANTIATE_TEST_SUITE_P(Kernels, RaggedAttention,
                         ::testing::Combine(::testing::Values(at::kFloat, at::kBFloat16),
                                            ::testing::ValuesIn(supported_levels())),
                         [](const auto& kernels) {
                           return std::string(c10::toString(std::get<0>(kernels.param))) + std::get<1>(kernels.param);
                         });

TEST(CpuKernels, AnUnknownNameIsAnError) {
  const UseKernels use("avx3");
  try {
    prefix_attention(at::randn({1, 1, 8}), random_prefix({2}, 8, at::kFloat, false));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_EQ(error.fact(), "this processor has no CPU kernels 'avx3'");
    EXPECT_EQ(error.where(), "environment variable KVC_CPU_KERNELS");
    EXPECT_THAT(error.mend(), ::testing::StartsWith("unset it, or one of: portable"));
  }
}

TEST(CpuKernels, TheNameDecidesTheKernel) {
  for (const std::string& level : supported_levels()) {
    const UseKernels use(level);
    for (const bool bfloat16 : {false, true}) {
      EXPECT_EQ(cpu_attention_kernel(bfloat16).bfloat16, bfloat16);
      EXPECT_EQ(cpu_attention_kernel(bfloat16).level == CpuLevel::kPortable, level == "portable");
    }
  }
}

}  // namespace
}  // namespace kvc
