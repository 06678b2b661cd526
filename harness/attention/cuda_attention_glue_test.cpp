// What stands between tensors and the CUDA kernels, with the kernels run on the host (ragged_attention_cuda_test.cpp
// holds them), against the CPU's own attention.
#define KVC_CUDA_NAMESPACE emulated_cuda
#include "harness/attention/cuda_attention_glue.h"

#include <gtest/gtest.h>

#include <numeric>

#include "harness/attention/ragged_attention.h"
#include "harness/attention/ragged_attention_cpu.h"
#include "harness/attention/sequence_runs.h"

namespace kvc::emulated_cuda {
namespace {

struct Scene {
  at::Tensor queries;
  LayerKv prefix;
  at::Tensor keys, values;
  std::vector<int64_t> lengths, offsets = {0};

  Scene(at::ScalarType dtype, const std::vector<int64_t>& heads, std::vector<int64_t> tail_lengths,
        const std::vector<int64_t>& news, bool bias)
      : lengths(std::move(tail_lengths)) {
    constexpr int64_t kDim = 16, kGroup = 3;
    at::manual_seed(5);
    const auto n_heads = static_cast<int64_t>(heads.size()), batch = static_cast<int64_t>(lengths.size());
    for (const int64_t n : news) offsets.push_back(offsets.back() + n);
    prefix.head_offsets = {0};
    for (const int64_t n : heads) prefix.head_offsets.push_back(prefix.head_offsets.back() + n);
    queries = at::randn({offsets.back(), n_heads * kGroup, kDim}).to(dtype);
    prefix.keys = at::randn({prefix.n_entries(), kDim}).to(dtype);
    prefix.values = at::randn({prefix.n_entries(), kDim}).to(dtype);
    if (bias) prefix.bias = at::randn({prefix.n_entries()});
    keys = at::randn({batch, n_heads, 40, kDim}).to(dtype);
    values = at::randn({batch, n_heads, 40, kDim}).to(dtype);
  }
  TailView tails() const { return {keys, values, lengths, offsets}; }
};

const std::vector<Scene>& scenes() {
  static const std::vector<Scene> all = {
      {at::kFloat, {300, 0, 31}, {0, 5, 30, 2}, {3, 1, 0, 20}, true},
      {at::kFloat, {0, 0}, {0, 7}, {1, 2}, false},
      {at::kBFloat16, {150, 7}, {0, 11}, {1, 1}, true},
      {at::kBFloat16, {20}, {3, 3, 3}, {1, 1, 1}, false},
  };
  return all;
}

// `inputs`: dtype of queries, keys and values. In bfloat16 the CPU's kernels round a row's weights to bfloat16 where
// the processor has products in it (2^-9 of weights that sum to 1, values of size about 1).
void expect_near(const at::Tensor& got, const at::Tensor& want, at::ScalarType inputs = at::kFloat) {
  ASSERT_EQ(got.sizes(), want.sizes());
  ASSERT_EQ(got.scalar_type(), want.scalar_type());
  const CpuLevel level = cpu_attention_kernel(inputs == at::kBFloat16).level;
  const bool rounds = inputs == at::kBFloat16 && (level == CpuLevel::kPortable || level == CpuLevel::kAvx512Bf16);
  const double most = got.scalar_type() != at::kFloat ? 2e-2 : rounds ? 5e-3 : 2e-5;
  EXPECT_LT((got.to(at::kDouble) - want.to(at::kDouble)).abs().max().item<double>(), most);
}

TEST(CudaGlue, ContextEqualsTheCpus) {
  for (const Scene& s : scenes()) {
    ASSERT_TRUE(kernels_take(s.queries, s.keys, s.values, s.keys.size(1)));
    expect_near(context(s.queries, s.prefix, s.tails(), nullptr), context_attention(s.queries, s.prefix, s.tails()));
  }
}

TEST(CudaGlue, TheSameBitsHoweverTheBatchIsCut) {
  for (const Scene& s : scenes()) {
    const at::Tensor whole = context(s.queries, s.prefix, s.tails(), nullptr);
    for (const int64_t most_bytes : {int64_t{1}, int64_t{50'000}}) {
      EXPECT_TRUE(at::equal(whole, context(s.queries, s.prefix, s.tails(), nullptr, most_bytes)));
    }
  }
  const Scene& s = scenes()[0];  // the second size cuts between other sequences than the first
  EXPECT_EQ(sequences_at_once(s.queries, 4, s.offsets, 3, 0, 1), 1U);
  EXPECT_EQ(sequences_at_once(s.queries, 4, s.offsets, 3, 0, 50'000), 3U);
  EXPECT_EQ(sequences_at_once(s.queries, 4, s.offsets, 3, 0, 1 << 20), 4U);
}

// Sequences of 9 rows and more (3 tokens) apart, as on a GPU those that matrix products serve better.
TEST(CudaGlue, RunsOfShortSequencesAndLongOnesAlone) {
  using Numbers = std::vector<int64_t>;
  const Scene s(at::kFloat, {40, 3}, {2, 0, 7, 1, 5, 0, 4}, {1, 2, 3, 9, 0, 1, 4}, true);
  std::vector<Numbers> served;  // new tokens of each call's sequences
  const auto serve = [&](const at::Tensor& queries, const TailView& tails) {
    served.emplace_back();
    for (size_t b = 0; b < tails.lengths.size(); ++b) served.back().push_back(tails.n_new(b));
    return PartialAttention{context(queries, s.prefix, tails, nullptr), {}};
  };
  const auto aside = [&](const at::Tensor& queries, const TailView& tails) {
    EXPECT_EQ(tails.batch(), 1);
    EXPECT_GE(queries.size(0), 3);
    return serve(queries, tails);
  };
  const at::Tensor whole = context(s.queries, s.prefix, s.tails(), nullptr);
  EXPECT_TRUE(at::equal(whole, attend_in_runs(s.queries, s.tails(), 9, serve, aside).output));
  EXPECT_EQ(served, (std::vector<Numbers>{{1, 2}, {3}, {9}, {0, 1}, {4}}));
  served.clear();
  EXPECT_TRUE(at::equal(whole, attend_in_runs(s.queries, s.tails(), 100, serve, aside).output));
  EXPECT_EQ(served, (std::vector<Numbers>{{1, 2, 3, 9, 0, 1, 4}}));
}

TEST(CudaGlue, PartsEqualTheCpus) {
  for (const Scene& s : scenes()) {
    const PartialAttention prefix = prefix_alone(s.queries, s.prefix, nullptr);
    const PartialAttention want = prefix_attention(s.queries, s.prefix);
    expect_near(prefix.output, want.output, s.queries.scalar_type());
    EXPECT_TRUE(at::equal(prefix.log_sum_exp.isinf(), want.log_sum_exp.isinf()));
    expect_near(prefix.log_sum_exp.nan_to_num(0, 0, 0), want.log_sum_exp.nan_to_num(0, 0, 0));
    const PartialAttention tail = attend_parts(s.queries, s.keys.size(1), {tail_part(s.tails())}, at::kFloat, nullptr);
    const PartialAttention want_tail = tail_attention(s.queries, s.tails());
    expect_near(tail.output, want_tail.output, s.queries.scalar_type());
    expect_near(tail.log_sum_exp, want_tail.log_sum_exp);
  }
}

TEST(CudaGlue, APrefixHasTheSameBitsHoweverItsTokensAreCut) {
  for (const Scene& s : scenes()) {
    const PartialAttention whole = prefix_alone(s.queries, s.prefix, nullptr);
    const int64_t token_bytes = piece_bytes(s.queries, pieces_of(prefix_part(s.prefix, 1).part));
    for (const int64_t most_bytes : {int64_t{1}, 2 * token_bytes, 5 * token_bytes + 1}) {
      const int64_t launched = attention_launches().launches, n = s.queries.size(0);
      const PartialAttention cut = prefix_alone(s.queries, s.prefix, nullptr, most_bytes);
      EXPECT_TRUE(at::equal(whole.output, cut.output));
      EXPECT_TRUE(at::equal(whole.log_sum_exp, cut.log_sum_exp));
      const int64_t step = std::max<int64_t>(1, most_bytes / token_bytes);
      EXPECT_EQ(attention_launches().launches - launched, 2 * ((n + step - 1) / step));
    }
  }
}

TEST(CudaGlue, WritesWhatTailsWrite) {
  for (const Scene& s : scenes()) {
    Tails tails(1, s.keys.size(1), s.keys.size(3), static_cast<int64_t>(s.lengths.size()), s.keys.size(2),
                s.keys.options());
    tails.keys(0).copy_(s.keys);
    tails.values(0).copy_(s.values);
    tails.advance([&] {
      std::vector<int64_t> ends = {0};
      for (const int64_t n : s.lengths) ends.push_back(ends.back() + n);
      return ends;
    }());
    // Rows as a projection leaves them: keys and values of a token side by side.
    const int64_t n = s.queries.size(0), n_heads = s.keys.size(1), d = s.keys.size(3);
    const at::Tensor fused = at::randn({n, 2 * n_heads, d}).to(s.keys.scalar_type());
    const at::Tensor new_keys = fused.narrow(1, 0, n_heads), new_values = fused.narrow(1, n_heads, n_heads);
    ASSERT_TRUE(rows_are_dense(new_keys));
    EXPECT_FALSE(rows_are_dense(new_keys.transpose(0, 1)));
    const at::Tensor keys = s.keys.clone(), values = s.values.clone();
    write({keys, values, s.lengths, s.offsets}, new_keys, new_values, nullptr);
    tails.write(0, new_keys, new_values, s.offsets);
    EXPECT_TRUE(at::equal(keys, tails.keys(0)));
    EXPECT_TRUE(at::equal(values, tails.values(0)));
    EXPECT_FALSE(at::equal(keys, s.keys));
  }
}

// One new token a sequence, the lengths known to the kernels only.
std::vector<Scene> steps() {
  return {{at::kFloat, {300, 0, 31}, {0, 5, 30, 2}, {1, 1, 1, 1}, true},
          {at::kFloat, {0, 0}, {0, 39}, {1, 1}, false},
          {at::kBFloat16, {150, 7}, {0, 11, 39}, {1, 1, 1}, true}};
}

TEST(CudaGlue, AStepHasTheBitsOfTheContext) {
  for (const Scene& s : steps()) {
    StepTables tables = StepTables::of(static_cast<int64_t>(s.lengths.size()), at::kCPU);
    const at::Tensor fused =
        at::randn({s.queries.size(0), 2 * s.keys.size(1), s.keys.size(3)}).to(s.keys.scalar_type());
    const at::Tensor new_keys = fused.narrow(1, 0, s.keys.size(1)),
                     new_values = fused.narrow(1, s.keys.size(1), s.keys.size(1));
    // The same tables in the same memory serve one length after another, as they do in a graph.
    for (int64_t shorter = 0; shorter < 3; ++shorter) {
      std::vector<int64_t> lengths = s.lengths;
      for (int64_t& length : lengths) length = std::max<int64_t>(0, length - 7 * shorter);
      tables.lengths.copy_(at::tensor(lengths, at::kLong));
      const at::Tensor keys = s.keys.clone(), values = s.values.clone(), want_keys = s.keys.clone(),
                       want_values = s.values.clone();
      write_step(keys, values, new_keys, new_values, tables, nullptr);
      write({want_keys, want_values, lengths, s.offsets}, new_keys, new_values, nullptr);
      EXPECT_TRUE(at::equal(keys, want_keys));
      EXPECT_TRUE(at::equal(values, want_values));
      EXPECT_FALSE(at::equal(keys, s.keys));
      const at::Tensor want = context(s.queries, s.prefix, {keys, values, lengths, s.offsets}, nullptr);
      for (const int64_t most_bytes : {int64_t{1}, int64_t{20'000}, kMostPieceBytes}) {
        EXPECT_TRUE(at::equal(want, step_context(s.queries, s.prefix, keys, values, tables, nullptr, most_bytes)));
      }
    }
  }
}

TEST(StepAttention, OnTheCpuTheSameAsTheContext) {
  for (const Scene& s : steps()) {
    StepTables tables = StepTables::of(static_cast<int64_t>(s.lengths.size()), at::kCPU);
    tables.lengths.copy_(at::tensor(s.lengths, at::kLong));
    const at::Tensor rows = s.keys.select(2, 0);
    const at::Tensor keys = s.keys.clone(), values = s.values.clone();
    kvc::write_step(keys, values, rows.neg(), rows, tables);
    for (size_t b = 0; b < s.lengths.size(); ++b) {
      const auto row = static_cast<int64_t>(b);
      EXPECT_TRUE(at::equal(keys[row].select(1, s.lengths[b]), rows[row].neg()));
      EXPECT_TRUE(at::equal(values[row].select(1, s.lengths[b]), rows[row]));
      EXPECT_TRUE(at::equal(keys[row].narrow(1, 0, s.lengths[b]), s.keys[row].narrow(1, 0, s.lengths[b])));
    }
    EXPECT_TRUE(at::equal(kvc::step_attention(s.queries, s.prefix, keys, values, tables),
                          context_attention(s.queries, s.prefix, {keys, values, s.lengths, s.offsets})));
  }
}

TEST(StepAttention, WhereItServes) {
  const at::TensorOptions options = at::TensorOptions().dtype(at::kFloat);
  EXPECT_TRUE(serves_steps(options, 4, 64));
  EXPECT_FALSE(serves_steps(options.device(at::kMeta), 4, 64));
  const at::Tensor meta = at::empty({1, 3, 4, 16}, options.device(at::kMeta));
  EXPECT_THROW(kvc::step_attention(meta.select(2, 0), {meta[0][0], meta[0][0], {}, {0, 4}}, meta, meta, {}), Error);
}

TEST(CudaGlue, OtherTensorsAreNotTaken) {
  const Scene& s = scenes()[0];
  EXPECT_FALSE(kernels_take(s.queries, s.keys.to(at::kBFloat16), s.values, 3));
  EXPECT_FALSE(kernels_take(s.queries, s.keys.transpose(1, 2), s.values, 3));
  EXPECT_FALSE(kernels_take(s.queries.to(at::kHalf), s.keys.to(at::kHalf), s.values.to(at::kHalf), 3));
  EXPECT_FALSE(kernels_take(s.queries, s.keys, s.values, 4));
  EXPECT_FALSE(kernels_take(at::zeros({1, 1, 257}), at::zeros({3, 257}), at::zeros({3, 257}), 1));
}

TEST(CudaGlue, ARefusedLaunchIsAnError) {
  EXPECT_THROW(demand("out of memory", "attention kernel"), Error);
  demand(nullptr, "attention kernel");
}

// The meta device has no memory, but is not the CPU: what is sent to it can be counted.
TEST(DeviceNumbers, EqualTablesAreSentOnce) {
  std::vector<int64_t> numbers(5);
  std::iota(numbers.begin(), numbers.end(), 0);
  const at::Tensor first = device_numbers(numbers, at::kMeta);
  EXPECT_TRUE(first.is_meta());
  EXPECT_EQ(first.sizes(), at::IntArrayRef({5}));
  EXPECT_TRUE(first.is_same(device_numbers(numbers, at::kMeta)));
  numbers[4] = 9;
  EXPECT_FALSE(first.is_same(device_numbers(numbers, at::kMeta)));
  EXPECT_FALSE(first.is_same(device_numbers({0, 1, 2, 3, 4}, at::kMeta, at::kInt)));
  for (int64_t i = 0; i < 300; ++i) device_numbers({i}, at::kMeta);
  numbers[4] = 4;
  EXPECT_FALSE(first.is_same(device_numbers(numbers, at::kMeta)));  // long forgotten
}

TEST(DeviceNumbers, OnTheCpuEveryCallersOwn) {
  const at::Tensor first = device_numbers({4, 2}, at::kCPU);
  EXPECT_TRUE(at::equal(first, at::tensor({4, 2}, at::kLong)));
  EXPECT_FALSE(first.is_same(device_numbers({4, 2}, at::kCPU)));
}

}  // namespace
}  // namespace kvc::emulated_cuda
