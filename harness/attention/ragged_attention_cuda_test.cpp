// The CUDA kernels' own text, run on the host (harness/testing/cuda_emulation.h), against float64 loops.
#include "harness/testing/cuda_emulation.h"
// The kernels, under the emulation's names.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "harness/attention/ragged_attention_cuda.cu"

namespace kvc::emulated_cuda {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

struct Case {
  int head_dim, n_query_heads, n_kv_heads;
  std::vector<int64_t> prefix;   // entries of each KV head
  std::vector<int64_t> lengths;  // of the tails, before the new tokens
  std::vector<int64_t> news;     // new tokens of each sequence
  bool bias;
  int n_pieces;  // at most; 0: as pieces_of() says
};

template <class T>
T number(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return __float2bfloat16(x);
}

template <class T>
std::vector<T> random_numbers(std::mt19937_64& random, int64_t n, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<T> numbers;
  for (int64_t i = 0; i < n; ++i) numbers.push_back(number<T>(normal(random)));
  return numbers;
}

// What one query sees: logits and values, softmax in float64.
struct Softmax {
  std::vector<double> logits;
  std::vector<const void*> values;
};

template <class T>
struct Scene {
  explicit Scene(const Case& c) : shape_case(c) {
    std::mt19937_64 random(17);
    for (const int64_t n : c.prefix) offsets.push_back(offsets.back() + n);
    sequence_offsets = {0};
    for (const int64_t n : c.news) sequence_offsets.push_back(sequence_offsets.back() + n);
    for (size_t b = 0; b < c.lengths.size(); ++b) capacity = std::max(capacity, c.lengths[b] + c.news[b]);
    const int64_t d = c.head_dim, batch = static_cast<int64_t>(c.lengths.size());
    queries = random_numbers<T>(random, n_tokens() * c.n_query_heads * d, 1.5F);
    prefix_keys = random_numbers<T>(random, offsets.back() * d, 1.0F);
    prefix_values = random_numbers<T>(random, offsets.back() * d, 1.0F);
    tail_keys = random_numbers<T>(random, batch * c.n_kv_heads * capacity * d, 1.0F);
    tail_values = random_numbers<T>(random, batch * c.n_kv_heads * capacity * d, 1.0F);
    if (c.bias) bias = random_numbers<float>(random, offsets.back(), 2.0F);
  }

  int64_t n_tokens() const { return sequence_offsets.back(); }

  AttentionShape shape() const {
    return {std::is_same_v<T, float> ? Number::kFloat32 : Number::kBfloat16, n_tokens(), shape_case.head_dim,
            shape_case.n_query_heads, shape_case.n_kv_heads};
  }

  ContextPart prefix_part() const {
    ContextPart part;
    part.keys = prefix_keys.data();
    part.values = prefix_values.data();
    part.bias = bias.empty() ? nullptr : bias.data();
    std::copy(offsets.begin(), offsets.end(), part.head_offsets);
    part.most_tokens = n_tokens();
    for (const int64_t n : shape_case.prefix) part.most_entries = std::max(part.most_entries, n);
    return part;
  }

  ContextPart tail_part() const {
    ContextPart part;
    part.keys = tail_keys.data();
    part.values = tail_values.data();
    part.lengths = shape_case.lengths.data();
    part.sequence_offsets = sequence_offsets.data();
    part.batch = static_cast<int64_t>(shape_case.lengths.size());
    part.capacity = capacity;
    for (const int64_t n : shape_case.news) part.most_tokens = std::max(part.most_tokens, n);
    part.most_entries = capacity;
    return part;
  }

  void look(Softmax& seen, int64_t token, int head, const T* key, const T* value, double bias_of_key) const {
    const T* query = queries.data() + (token * shape_case.n_query_heads + head) * shape_case.head_dim;
    double dot = 0;
    for (int i = 0; i < shape_case.head_dim; ++i) dot += double{to_float(query[i])} * double{to_float(key[i])};
    seen.logits.push_back(dot / std::sqrt(shape_case.head_dim) + bias_of_key);
    seen.values.push_back(value);
  }

  void look_at_prefix(Softmax& seen, int64_t token, int head) const {
    const int kv = head / (shape_case.n_query_heads / shape_case.n_kv_heads);
    for (int64_t e = offsets[kv]; e < offsets[kv + 1]; ++e) {
      look(seen, token, head, prefix_keys.data() + e * shape_case.head_dim,
           prefix_values.data() + e * shape_case.head_dim, bias.empty() ? 0.0 : double{bias[e]});
    }
  }

  void look_at_tail(Softmax& seen, int64_t token, int head) const {
    size_t b = 0;
    while (sequence_offsets[b + 1] <= token) ++b;
    const int kv = head / (shape_case.n_query_heads / shape_case.n_kv_heads);
    const int64_t first = (static_cast<int64_t>(b) * shape_case.n_kv_heads + kv) * capacity;
    const int64_t n = shape_case.lengths[b] + token - sequence_offsets[b] + 1;
    for (int64_t e = first; e < first + n; ++e) {
      look(seen, token, head, tail_keys.data() + e * shape_case.head_dim, tail_values.data() + e * shape_case.head_dim,
           0);
    }
  }

  Case shape_case;
  std::vector<int64_t> offsets = {0}, sequence_offsets;
  int64_t capacity = 0;
  std::vector<T> queries, prefix_keys, prefix_values, tail_keys, tail_values;
  std::vector<float> bias;
};

template <class T>
double expected(const Softmax& seen, int dim, std::vector<double>& output) {
  double highest = kNothing, total = 0;
  for (const double logit : seen.logits) highest = std::max(highest, logit);
  output.assign(static_cast<size_t>(dim), 0.0);
  if (seen.logits.empty()) return kNothing;
  for (const double logit : seen.logits) total += std::exp(logit - highest);
  for (size_t e = 0; e < seen.logits.size(); ++e) {
    const double weight = std::exp(seen.logits[e] - highest) / total;
    for (int i = 0; i < dim; ++i) {
      output[static_cast<size_t>(i)] += weight * double{to_float(static_cast<const T*>(seen.values[e])[i])};
    }
  }
  return highest + std::log(total);
}

// Prefixes on tensor cores meet the values with weights rounded to bfloat16 (2^-9 of weights that sum to 1, values of a
// few units); everything else is float32.
template <class T>
double tolerance(const Case& c) {
  return std::is_same_v<T, __nv_bfloat16> && c.head_dim % 8 == 0 ? 8e-3 : 2e-5;
}

// Prefix and tails in pieces, all merged at once, as a decoding step does it.
template <class T>
void check(const Case& c) {
  const Scene<T> scene(c);
  const AttentionShape shape = scene.shape();
  const ContextPart prefix = scene.prefix_part(), tail = scene.tail_part();
  const int prefix_pieces = c.n_pieces > 0 ? c.n_pieces : pieces_of(prefix);
  const int tail_pieces = c.n_pieces > 0 ? c.n_pieces : pieces_of(tail);
  const int n_pieces = prefix_pieces + tail_pieces;
  const int64_t rows = scene.n_tokens() * c.n_query_heads;
  // What a kernel does not write must not be read: NaN shows it.
  std::vector<float> pieces(static_cast<size_t>(n_pieces * rows * c.head_dim), std::nanf(""));
  std::vector<float> piece_sums(static_cast<size_t>(n_pieces * rows), std::nanf(""));
  ASSERT_EQ(attend(shape, prefix, scene.queries.data(), prefix_pieces, pieces.data(), piece_sums.data(), nullptr),
            nullptr);
  ASSERT_EQ(attend(shape, tail, scene.queries.data(), tail_pieces, pieces.data() + prefix_pieces * rows * c.head_dim,
                   piece_sums.data() + prefix_pieces * rows, nullptr),
            nullptr);
  std::vector<float> output(static_cast<size_t>(rows * c.head_dim), std::nanf("")), sums(static_cast<size_t>(rows));
  ASSERT_EQ(merge_pieces(shape, n_pieces, pieces.data(), piece_sums.data(), Number::kFloat32, output.data(),
                         sums.data(), nullptr),
            nullptr);
  std::vector<double> want;
  for (int64_t token = 0; token < scene.n_tokens(); ++token) {
    for (int head = 0; head < c.n_query_heads; ++head) {
      Softmax seen;
      scene.look_at_prefix(seen, token, head);
      scene.look_at_tail(seen, token, head);
      const int64_t row = token * c.n_query_heads + head;
      const double sum = expected<T>(seen, c.head_dim, want);
      ASSERT_NEAR(sums[static_cast<size_t>(row)], sum, 2e-5 * (1 + std::abs(sum)))
          << "token " << token << " head " << head;
      for (int i = 0; i < c.head_dim; ++i) {
        ASSERT_NEAR(output[static_cast<size_t>(row * c.head_dim + i)], want[static_cast<size_t>(i)], tolerance<T>(c))
            << "token " << token << " head " << head << " dimension " << i;
      }
    }
  }
}

const std::vector<Case> kCases = {
    // d, Hq, Hkv, prefix, lengths, new tokens, bias, pieces
    {64, 4, 2, {70, 33}, {0}, {1}, false, 1},
    {64, 9, 3, {0, 1, 32}, {5, 0, 31}, {1, 1, 1}, true, 0},
    {128, 8, 1, {97}, {3, 40}, {2, 5}, true, 3},
    {64, 2, 2, {31, 64}, {0, 7}, {40, 3}, true, 2},
    {96, 4, 4, {0, 0, 0, 0}, {0, 2}, {1, 1}, false, 1},
    {20, 2, 1, {45}, {0}, {9}, true, 4},  // a size that no 16 bytes divide
    {256, 2, 1, {40}, {1}, {3}, false, 2},
    {32,
     16,
     2,
     {12, 66},
     {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17},
     {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
     true,
     0},
    // Heads of one and of several pieces side by side; groups that rows of four do not divide.
    {16, 5, 1, {300}, {0, 200}, {1, 4}, true, 0},
    {24, 12, 2, {129, 1000}, {2}, {3}, true, 0},
    {40, 7, 1, {257}, {4, 0, 9}, {1, 0, 6}, false, 0},
    {256, 2, 1, {140}, {0}, {20}, true, 0},    // wide heads, many rows
    {8, 2, 2, {9000, 30}, {1}, {1}, true, 0},  // more entries than the most pieces times the least entries
    // More rows of a head than a block takes; sizes between those that tensor cores are fed with.
    {128, 8, 1, {300}, {2}, {20}, false, 0},
    {80, 6, 2, {65, 190}, {0, 1}, {1, 1}, true, 0},
    {136, 2, 1, {70}, {1}, {1}, false, 0},
};

TEST(CudaAttention, EqualsFloat64LoopsInFloat32) {
  for (const Case& c : kCases) check<float>(c);
}

TEST(CudaAttention, EqualsFloat64LoopsInBfloat16) {
  for (const Case& c : kCases) check<__nv_bfloat16>(c);
}

// Prefix and tails of a scene, merged. tail_bound: told to the launcher as the longest tail; 0 = the tails' capacity.
template <class T>
std::pair<std::vector<float>, std::vector<float>> attended(const Scene<T>& scene, int64_t tail_bound = 0) {
  const AttentionShape shape = scene.shape();
  const ContextPart prefix = scene.prefix_part();
  ContextPart tail = scene.tail_part();
  if (tail_bound > 0) tail.most_entries = tail_bound;
  const int n_prefix = pieces_of(prefix), n = n_prefix + pieces_of(tail);
  const int64_t rows = scene.n_tokens() * shape.n_query_heads, d = shape.head_dim;
  std::vector<float> pieces(static_cast<size_t>(n * rows * d), std::nanf(""));
  std::vector<float> piece_sums(static_cast<size_t>(n * rows), std::nanf(""));
  std::vector<float> output(static_cast<size_t>(rows * d)), sums(static_cast<size_t>(rows));
  EXPECT_EQ(attend(shape, prefix, scene.queries.data(), n_prefix, pieces.data(), piece_sums.data(), nullptr), nullptr);
  EXPECT_EQ(attend(shape, tail, scene.queries.data(), n - n_prefix, pieces.data() + n_prefix * rows * d,
                   piece_sums.data() + n_prefix * rows, nullptr),
            nullptr);
  EXPECT_EQ(
      merge_pieces(shape, n, pieces.data(), piece_sums.data(), Number::kFloat32, output.data(), sums.data(), nullptr),
      nullptr);
  return {output, sums};
}

template <class T>
void expect_same_bits(const Case& together) {
  const Scene<T> batch(together);
  const auto [output, sums] = attended(batch);
  for (size_t b = 0; b < together.lengths.size(); ++b) {
    Case alone = together;
    alone.lengths = {together.lengths[b]};
    alone.news = {together.news[b]};
    Scene<T> single(alone);
    single.prefix_keys = batch.prefix_keys;
    single.prefix_values = batch.prefix_values;
    single.bias = batch.bias;
    const auto row = static_cast<ptrdiff_t>(6 * 32), first = static_cast<ptrdiff_t>(batch.sequence_offsets[b]);
    const auto n_tokens = static_cast<ptrdiff_t>(together.news[b]);
    single.queries.assign(batch.queries.begin() + first * row, batch.queries.begin() + (first + n_tokens) * row);
    const auto head_size = static_cast<ptrdiff_t>(batch.capacity * 32);
    const ptrdiff_t from = static_cast<ptrdiff_t>(b) * 2 * head_size;
    single.capacity = batch.capacity;
    single.tail_keys.assign(batch.tail_keys.begin() + from, batch.tail_keys.begin() + from + 2 * head_size);
    single.tail_values.assign(batch.tail_values.begin() + from, batch.tail_values.begin() + from + 2 * head_size);
    const auto [own, own_sums] = attended(single);
    EXPECT_TRUE(std::equal(own.begin(), own.end(), output.begin() + first * row)) << "sequence " << b;
    EXPECT_TRUE(std::equal(own_sums.begin(), own_sums.end(), sums.begin() + first * 6)) << "sequence " << b;
  }
}

TEST(CudaAttention, ARowHasTheSameBitsAloneAndInABatch) {
  expect_same_bits<float>({32, 6, 2, {700, 40}, {300, 2, 0}, {2, 1, 9}, true, 0});
  expect_same_bits<__nv_bfloat16>({32, 6, 2, {700, 40}, {300, 2, 0}, {2, 1, 9}, true, 0});
  expect_same_bits<__nv_bfloat16>({32, 6, 2, {700, 40}, {300, 2, 0}, {2, 30, 9}, false, 0});  // several blocks of rows
}

// What a captured step needs: a launch laid out for more entries than there are.
TEST(CudaAttention, ALooserBoundOnTheTailsChangesNoBit) {
  const Scene<float> scene({32, 6, 2, {700, 40}, {300, 2, 0}, {1, 1, 1}, true, 0});
  const auto exact = attended(scene, 301);
  EXPECT_EQ(attended(scene, 900), exact);
  EXPECT_EQ(attended(scene, 1 << 20), exact);
}

template <class T>
void expect_off(double most) {
  Scene<T> scene({16, 2, 2, {200, 3}, {0}, {1}, true, 0});
  for (size_t e = 0; e < scene.bias.size(); e += 3) scene.bias[e] = -INFINITY;
  for (size_t e = 32; e < 160; ++e) scene.bias[e] = -INFINITY;  // whole tiles, and a piece's beginning
  Scene<T> without = scene;
  without.shape_case.prefix = {0, 0};
  without.offsets = {0};
  without.bias.clear();
  without.prefix_keys.clear();
  without.prefix_values.clear();
  for (size_t h = 0; h < 2; ++h) {
    for (int64_t e = scene.offsets[h]; e < scene.offsets[h + 1]; ++e) {
      if (std::isinf(scene.bias[static_cast<size_t>(e)])) continue;
      without.bias.push_back(scene.bias[static_cast<size_t>(e)]);
      const auto at = static_cast<ptrdiff_t>(e * 16);
      without.prefix_keys.insert(without.prefix_keys.end(), scene.prefix_keys.begin() + at,
                                 scene.prefix_keys.begin() + at + 16);
      without.prefix_values.insert(without.prefix_values.end(), scene.prefix_values.begin() + at,
                                   scene.prefix_values.begin() + at + 16);
      ++without.shape_case.prefix[h];
    }
    without.offsets.push_back(static_cast<int64_t>(without.bias.size()));
  }
  ASSERT_LT(without.bias.size(), scene.bias.size() / 2);
  const auto [output, sums] = attended(scene);
  const auto [want, want_sums] = attended(without);
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(output[i], want[i], most);
  for (size_t i = 0; i < want_sums.size(); ++i) ASSERT_NEAR(sums[i], want_sums[i], 1e-5);
}

TEST(CudaAttention, AnInfinitelyNegativeBiasSwitchesAnEntryOff) {
  expect_off<float>(1e-5);
  expect_off<__nv_bfloat16>(8e-3);
}

template <class T>
void expect_tail_alone() {
  Scene<T> scene({16, 1, 1, {300}, {4}, {1}, true, 0});
  const auto [seen, seen_sums] = attended(scene);
  std::fill(scene.bias.begin(), scene.bias.end(), -INFINITY);
  const auto [output, sums] = attended(scene);
  scene.shape_case.prefix = {0};
  scene.offsets = {0, 0};
  EXPECT_EQ(attended(scene), std::make_pair(output, sums));
  EXPECT_NE(sums, seen_sums);
}

TEST(CudaAttention, AHeadWhoseEntriesAreAllOffSeesTheTailAlone) {
  expect_tail_alone<float>();
  expect_tail_alone<__nv_bfloat16>();
}

template <class T>
void expect_visible() {
  for (const float bad : {std::nanf(""), INFINITY}) {
    Scene<T> scene({16, 2, 2, {300, 3}, {0}, {1}, true, 0});
    scene.bias[200] = bad;
    const auto [output, sums] = attended(scene);
    EXPECT_TRUE(std::isnan(sums[0]));
    EXPECT_TRUE(std::isnan(output[0]));
    EXPECT_TRUE(std::isfinite(sums[1]));  // the other head does not see it
    EXPECT_TRUE(std::isfinite(output[16]));
  }
}

TEST(CudaAttention, WhatIsNoNumberStaysVisible) {
  expect_visible<float>();
  expect_visible<__nv_bfloat16>();
}

TEST(CudaAttention, OutputInTheModelsDtype) {
  const AttentionShape shape{Number::kBfloat16, 1, 8, 1, 1};
  const std::vector<float> pieces = {1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9};
  const std::vector<float> sums = {0.5F, -INFINITY};
  std::vector<__nv_bfloat16> output(8);
  ASSERT_EQ(merge_pieces(shape, 2, pieces.data(), sums.data(), Number::kBfloat16, output.data(), nullptr, nullptr),
            nullptr);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(to_float(output[static_cast<size_t>(i)]), static_cast<float>(i + 1));
}

TEST(CudaAttention, WritesNewRowsBehindTheOldOnes) {
  const Case c{64, 2, 2, {0, 0}, {3, 0, 5}, {2, 1, 0}, false, 1};
  Scene<float> scene(c);
  const std::vector<float> keys_before = scene.tail_keys, values_before = scene.tail_values;
  std::mt19937_64 random(3);
  // Rows inside the output of one projection: q, k and v of a token side by side.
  const int64_t stride = 3 * 2 * 64;
  const std::vector<float> fused = random_numbers<float>(random, 3 * stride, 1.0F);
  const ContextPart part = scene.tail_part();
  ASSERT_EQ(write_tails(scene.shape(), part, fused.data() + 128, stride, fused.data() + 256, stride, nullptr), nullptr);
  int64_t changed = 0;
  for (size_t i = 0; i < scene.tail_keys.size(); ++i) changed += scene.tail_keys[i] != keys_before[i] ? 1 : 0;
  EXPECT_EQ(changed, 3 * 2 * 64);
  const std::vector<std::vector<int64_t>> places = {{0, 3}, {0, 4}, {1, 0}};  // sequence, place of each new token
  for (int64_t token = 0; token < 3; ++token) {
    for (int64_t h = 0; h < 2; ++h) {
      const auto& place = places[static_cast<size_t>(token)];
      const auto to = static_cast<size_t>(((place[0] * 2 + h) * scene.capacity + place[1]) * 64);
      for (size_t i = 0; i < 64; ++i) {
        const auto from = static_cast<size_t>(token * stride + h * 64) + i;
        ASSERT_EQ(scene.tail_keys[to + i], fused[from + 128]);
        ASSERT_EQ(scene.tail_values[to + i], fused[from + 256]);
      }
    }
  }
}

TEST(CudaAttention, ShapesBeyondTheKernelsAreRefused) {
  Scene<float> scene({64, 2, 2, {1, 1}, {0}, {1}, false, 1});
  AttentionShape shape = scene.shape();
  float out[1];
  shape.head_dim = 257;
  EXPECT_NE(attend(shape, scene.prefix_part(), scene.queries.data(), 1, out, out, nullptr), nullptr);
  shape = scene.shape();
  shape.n_query_heads = 3;
  EXPECT_NE(attend(shape, scene.prefix_part(), scene.queries.data(), 1, out, out, nullptr), nullptr);
}

}  // namespace
}  // namespace kvc::emulated_cuda
