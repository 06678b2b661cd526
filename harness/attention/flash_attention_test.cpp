// What is packed for the flash kernels, with float64 loops in their place (harness/testing/flash_stand_in.h), against
// the float64 judge; and which way a GPU would take, with the CPU's kernels in place of its own.
#include "harness/attention/flash_attention.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "harness/attention/device_attention.h"
#include "harness/attention/ragged_attention.h"
#include "harness/core/error.h"
#include "harness/testing/flash_stand_in.h"
#include "harness/testing/naive_attention.h"

namespace kvc {
namespace {

using Numbers = std::vector<int64_t>;

struct Scene {
  at::Tensor queries, keys, values;
  LayerKv prefix;
  Numbers lengths, offsets = {0};

  Scene(at::ScalarType dtype, int64_t group, int64_t d, const Numbers& heads, Numbers tail_lengths, const Numbers& news,
        bool bias = false)
      : lengths(std::move(tail_lengths)) {
    at::manual_seed(9);
    int64_t capacity = 1;
    for (size_t b = 0; b < news.size(); ++b) {
      offsets.push_back(offsets.back() + news[b]);
      capacity = std::max(capacity, lengths[b] + news[b] + 3);
    }
    prefix.head_offsets = {0};
    for (const int64_t n : heads) prefix.head_offsets.push_back(prefix.head_offsets.back() + n);
    const auto n_heads = static_cast<int64_t>(heads.size()), batch = static_cast<int64_t>(news.size());
    queries = at::randn({offsets.back(), n_heads * group, d}).to(dtype);
    prefix.keys = at::randn({prefix.n_entries(), d}).to(dtype);
    prefix.values = at::randn({prefix.n_entries(), d}).to(dtype);
    if (bias) prefix.bias = at::randn({prefix.n_entries()});
    // Room behind the tails holds NaN: reading it shows.
    keys = at::full({batch, n_heads, capacity, d}, std::nan("")).to(dtype);
    values = at::full({batch, n_heads, capacity, d}, std::nan("")).to(dtype);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t seen = lengths[static_cast<size_t>(b)] + news[static_cast<size_t>(b)];
      keys[b].narrow(1, 0, seen).copy_(at::randn({n_heads, seen, d}));
      values[b].narrow(1, 0, seen).copy_(at::randn({n_heads, seen, d}));
    }
  }
  TailView tails() const { return {keys, values, lengths, offsets}; }
};

void expect_near(const PartialAttention& got, const PartialAttention& want, double most) {
  ASSERT_EQ(got.output.sizes(), want.output.sizes());
  ASSERT_EQ(got.log_sum_exp.sizes(), want.log_sum_exp.sizes());
  const at::Tensor sums = got.log_sum_exp.to(at::kDouble), exact = want.log_sum_exp.to(at::kDouble);
  ASSERT_TRUE(at::equal(sums.eq(-INFINITY), exact.eq(-INFINITY)));
  EXPECT_LT((sums - exact).nan_to_num(0, 0, 0).abs().max().item<double>(), 1e-4);
  EXPECT_LT((got.output.to(at::kDouble) - want.output.to(at::kDouble)).abs().max().item<double>(), most);
}

TEST(FlashPrefix, EveryGroupSizeAndRaggedHeads) {
  for (int64_t group = 1; group <= 16; ++group) {
    const Scene s(at::kFloat, group, 16, {5, 0, 40, 1}, {0, 0}, {2, 1});
    expect_near(flash_prefix(s.queries, s.prefix, &naive_flash_attention), naive_prefix_attention(s.queries, s.prefix),
                1e-5);
  }
}

TEST(FlashPrefix, NobodySeesAnything) {
  const Scene s(at::kFloat, 2, 8, {0, 3}, {0}, {1});
  const PartialAttention found = flash_prefix(s.queries, s.prefix, &naive_flash_attention);
  EXPECT_TRUE(at::equal(found.output.narrow(1, 0, 2), at::zeros({1, 2, 8})));
  EXPECT_TRUE(found.log_sum_exp.narrow(1, 0, 2).eq(-INFINITY).all().item<bool>());
}

// What the kernels would be called with, of tensors that hold no numbers.
PackedSequences g_called;
FlashResult remember(const PackedSequences& sequences) {
  g_called = sequences;
  const at::Tensor& rows = sequences.queries;
  return {at::zeros({1}).expand(rows.sizes()), at::zeros({1}).expand({1, rows.size(0)})};
}

Numbers numbers_of(const at::Tensor& offsets) {
  const at::Tensor wide = offsets.to(at::kLong);
  return {wide.const_data_ptr<int64_t>(), wide.const_data_ptr<int64_t>() + wide.numel()};
}

TEST(FlashPrefix, AHeadIsASequence) {
  LayerKv prefix;
  prefix.head_offsets = {0, 4097, 4097, 4107};
  prefix.keys = prefix.values = at::zeros({4107, 8});
  (void)flash_prefix(at::zeros({5, 6, 8}), prefix, &remember);
  EXPECT_EQ(numbers_of(g_called.key_offsets), (Numbers{0, 4097, 4097, 4107}));
  EXPECT_EQ(numbers_of(g_called.query_offsets), (Numbers{0, 10, 20, 30}));
  EXPECT_EQ(g_called.most_rows, 10);
  EXPECT_EQ(g_called.most_entries, 4097);
}

// 128 KV heads of 128k entries: by index arithmetic alone, nothing is allocated.
TEST(FlashPrefix, CountsOfTheLargestCachesFitInt32AndLargerOnesAreRefused) {
  LayerKv prefix;
  prefix.head_offsets = {0};
  for (int64_t h = 0; h < 128; ++h) prefix.head_offsets.push_back(prefix.head_offsets.back() + (int64_t{1} << 17));
  prefix.keys = prefix.values = at::zeros({1}).expand({prefix.n_entries(), 8});
  (void)flash_prefix(at::zeros({20, 128 * 16, 8}), prefix, &remember);
  EXPECT_EQ(numbers_of(g_called.key_offsets).back(), 1 << 24);
  EXPECT_EQ(g_called.most_entries, int64_t{1} << 17);
  EXPECT_THROW((void)flash_prefix(at::zeros({1}).expand({int64_t{1} << 21, 128 * 16, 8}), prefix, &remember), Error);
}

TEST(FlashTail, CausalBehindOlderEntriesAndFromNothing) {
  for (const int64_t group : {1, 3, 16}) {
    for (const int64_t length : {0, 1, 37}) {
      const Scene s(at::kFloat, group, 16, {0, 0}, {length}, {9});
      expect_near(flash_tail(s.queries, s.keys, s.values, length, &naive_flash_attention),
                  naive_tail_attention(s.queries, s.tails()), 1e-5);
    }
  }
}

TEST(FlashStandIn, RefusesWhatTheKernelsWouldMisread) {
  const Scene s(at::kFloat, 2, 8, {4}, {0}, {3});
  const auto offsets = [](std::initializer_list<int64_t> list, at::ScalarType type = at::kInt) {
    return at::tensor(Numbers(list), type);
  };
  const PackedSequences good{
      s.queries, s.prefix.keys.unsqueeze(1), s.prefix.values.unsqueeze(1), offsets({0, 3}), offsets({0, 4}), 3, 4,
      false};
  EXPECT_NO_THROW(naive_flash_attention(good));
  const auto refused = [&](auto change) {
    PackedSequences bad = good;
    change(bad);
    EXPECT_THROW(naive_flash_attention(bad), Error);
  };
  refused([&](PackedSequences& p) { p.query_offsets = offsets({0, 3}, at::kLong); });
  refused([&](PackedSequences& p) { p.query_offsets = offsets({0, 2}); });
  refused([&](PackedSequences& p) { p.key_offsets = offsets({0, 2, 4}); });
  refused([&](PackedSequences& p) { p.most_rows = 2; });
  refused([&](PackedSequences& p) { p.most_entries = 3; });
  refused([&](PackedSequences& p) { p.keys = p.keys.transpose(1, 2); });
}

// --- the choice ---

// The CPU's kernels for a GPU's own, counted.
struct Counted {
  int contexts = 0, prefixes = 0, tails = 0;
  static int flashes;
  DeviceAttention ways{[](const PackedSequences& sequences) {
                         ++flashes;
                         return naive_flash_attention(sequences);
                       },
                       [this](const at::Tensor& queries, const LayerKv& prefix, const TailView& view) {
                         ++contexts;
                         return context_attention(queries, prefix, view);
                       },
                       [this](const at::Tensor& queries, const LayerKv& prefix) {
                         ++prefixes;
                         return prefix_attention(queries, prefix);
                       },
                       [this](const at::Tensor& queries, const TailView& view) {
                         ++tails;
                         return tail_attention(queries, view);
                       }};
};
int Counted::flashes = 0;

struct Expected {
  int flashes, contexts, tails;
  int prefixes = 0;
};

void expect_ways(const Scene& s, const Expected& expected) {
  Counted counted;
  Counted::flashes = 0;
  const at::Tensor got = context_by(counted.ways, s.queries, s.prefix, s.tails());
  EXPECT_EQ(Counted::flashes, expected.flashes);
  EXPECT_EQ(counted.contexts, expected.contexts);
  EXPECT_EQ(counted.tails, expected.tails);
  EXPECT_EQ(counted.prefixes, expected.prefixes);
  EXPECT_EQ(got.scalar_type(), s.queries.scalar_type());
  PartialAttention want = naive_tail_attention(s.queries, s.tails());
  if (s.prefix.n_entries() > 0) want = merge(naive_prefix_attention(s.queries, s.prefix), want);
  const double most = s.queries.scalar_type() == at::kFloat ? 1e-5 : 2e-2;
  EXPECT_LT((got.to(at::kDouble) - want.output.to(at::kDouble)).abs().max().item<double>(), most);
}

TEST(DeviceAttention, ChoosesByBiasTypeAndLength) {
  const at::ScalarType half = at::kBFloat16;
  expect_ways(Scene(half, 4, 16, {30, 9}, {0, 5, 2}, {1, 1, 1}), {0, 1, 0});   // a step
  expect_ways(Scene(half, 4, 16, {30, 9}, {0, 5}, {100, 29}), {1, 0, 1});      // questions: prefix by flash
  expect_ways(Scene(half, 4, 16, {30, 9}, {0, 5}, {1, 1}, true), {0, 1, 0});   // with a bias
  expect_ways(Scene(at::kFloat, 4, 16, {30, 9}, {0, 5}, {1, 1}), {0, 1, 0});   // float32
  expect_ways(Scene(half, 4, 16, {0, 0}, {3}, {256}), {1, 0, 0});              // a document's chunk
  expect_ways(Scene(half, 4, 16, {5, 0}, {0}, {300}), {2, 0, 0});              // read over a cache
  expect_ways(Scene(half, 4, 16, {5, 0}, {3}, {300}, true), {1, 0, 0, 1});     // over one with a bias
  expect_ways(Scene(half, 4, 16, {5, 7}, {0, 2, 1}, {2, 260, 3}), {2, 0, 2});  // one long among short ones
  expect_ways(Scene(half, 4, 16, {5, 7}, {0, 2, 1}, {2, 260, 3}, true), {1, 2, 0, 1});
  expect_ways(Scene(at::kFloat, 4, 16, {5, 7}, {2}, {260}, true), {0, 0, 0});  // products
  expect_ways(Scene(half, 1, 20, {5, 7}, {0, 2}, {1, 2}), {0, 1, 0});          // 20 is no multiple of 8
  expect_ways(Scene(half, 1, 20, {5, 7}, {0}, {1024}, true), {0, 0, 0});       // likewise, long: products
  expect_ways(Scene(half, 4, 16, {0, 0}, {0, 0}, {1, 2}), {0, 1, 0});          // nothing before
}

TEST(DeviceAttention, NoTokensNoWork) {
  const Scene s(at::kBFloat16, 2, 16, {5, 7}, {}, {});
  Counted counted;
  EXPECT_EQ(context_by(counted.ways, s.queries, s.prefix, {s.keys, s.values, {}, {0}}).sizes(),
            (at::IntArrayRef{0, 4, 16}));
}

}  // namespace
}  // namespace kvc
