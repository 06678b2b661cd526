// The attention kernels, run on the host (ragged_attention_cuda_test.cpp holds them), at sizes of published models:
// every group size from 1 to 16, heads of 131,072 entries, and entries so far behind in memory that 31 bits do not
// count their numbers.
#define KVC_CUDA_NAMESPACE emulated_cuda
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "harness/attention/ragged_attention_cuda.h"

namespace kvc::emulated_cuda {
namespace {

Number number_of(at::ScalarType dtype) {
  return dtype == at::kFloat ? Number::kFloat32 : Number::kBfloat16;
}

struct Merged {
  at::Tensor output, log_sum_exp;  // (N, Hq, d), (N, Hq)
};

// Some parts attended and merged, in as many pieces as they ask for.
Merged attend_all(const AttentionShape& shape, const std::vector<ContextPart>& parts, const at::Tensor& queries) {
  int n_pieces = 0;
  for (const ContextPart& part : parts) n_pieces += pieces_of(part);
  const int64_t rows = shape.n_tokens * shape.n_query_heads;
  const at::Tensor outputs = at::full({n_pieces, rows, shape.head_dim}, NAN), sums = at::full({n_pieces, rows}, NAN);
  auto *output = outputs.mutable_data_ptr<float>(), *sum = sums.mutable_data_ptr<float>();
  for (const ContextPart& part : parts) {
    const int own = pieces_of(part);
    EXPECT_EQ(attend(shape, part, queries.const_data_ptr(), own, output, sum, nullptr), nullptr);
    output += own * rows * shape.head_dim;
    sum += own * rows;
  }
  Merged merged{at::empty({shape.n_tokens, shape.n_query_heads, shape.head_dim}),
                at::empty({shape.n_tokens, shape.n_query_heads})};
  EXPECT_EQ(
      merge_pieces(shape, n_pieces, outputs.const_data_ptr<float>(), sums.const_data_ptr<float>(), Number::kFloat32,
                   merged.output.mutable_data_ptr(), merged.log_sum_exp.mutable_data_ptr<float>(), nullptr),
      nullptr);
  return merged;
}

class GroupSizes : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(KernelSizes, GroupSizes, testing::Range(1, 17));

// Two KV heads, a short and a longer one; two sequences, one of which brings two tokens.
TEST_P(GroupSizes, EqualFloat64) {
  constexpr int64_t kHeads = 2, kDim = 32, kCapacity = 6;
  const int64_t group = GetParam(), n_query_heads = kHeads * group;
  const std::vector<int64_t> head_lens = {150, 5}, lengths = {3, 0}, offsets = {0, 1, 3};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::manual_seed(static_cast<std::uint64_t>(group));
    const at::Tensor queries = at::randn({3, n_query_heads, kDim}).mul_(1.5).to(dtype);
    const at::Tensor keys = at::randn({155, kDim}).to(dtype), values = at::randn({155, kDim}).to(dtype);
    const at::Tensor bias = at::randn({155});
    const at::Tensor tail_keys = at::randn({2, kHeads, kCapacity, kDim}).to(dtype);
    const at::Tensor tail_values = at::randn({2, kHeads, kCapacity, kDim}).to(dtype);
    ContextPart prefix;
    prefix.keys = keys.const_data_ptr();
    prefix.values = values.const_data_ptr();
    prefix.bias = bias.const_data_ptr<float>();
    prefix.head_offsets[1] = 150;
    prefix.head_offsets[2] = 155;
    prefix.most_tokens = 3;
    prefix.most_entries = 150;
    ContextPart tails;
    tails.keys = tail_keys.const_data_ptr();
    tails.values = tail_values.const_data_ptr();
    tails.lengths = lengths.data();
    tails.sequence_offsets = offsets.data();
    tails.batch = 2;
    tails.capacity = kCapacity;
    tails.most_tokens = 2;
    tails.most_entries = kCapacity;
    const AttentionShape shape{number_of(dtype), 3, kDim, static_cast<int>(n_query_heads), kHeads};
    const Merged got = attend_all(shape, {prefix, tails}, queries);

    const int64_t sequence_of[] = {0, 1, 1}, seen_of[] = {4, 1, 2};
    for (int64_t token = 0; token < 3; ++token) {
      for (int64_t head = 0; head < n_query_heads; ++head) {
        const int64_t kv = head / group, first = kv == 0 ? 0 : 150;
        const auto doubles = [](const at::Tensor& tensor) { return tensor.to(at::kDouble); };
        const auto own = [&](const at::Tensor& in_prefix, const at::Tensor& in_tail) {
          return at::cat({doubles(in_prefix.narrow(0, first, head_lens[static_cast<size_t>(kv)])),
                          doubles(in_tail[sequence_of[token]][kv].narrow(0, 0, seen_of[token]))});
        };
        const at::Tensor all_bias = at::cat({doubles(bias.narrow(0, first, head_lens[static_cast<size_t>(kv)])),
                                             at::zeros({seen_of[token]}, at::kDouble)});
        const at::Tensor logits =
            at::mv(own(keys, tail_keys), doubles(queries[token][head])) / std::sqrt(kDim * 1.0) + all_bias;
        const at::Tensor want = at::mv(own(values, tail_values).t(), at::softmax(logits, 0));
        // On tensor cores weights are rounded to bfloat16 before they meet the values.
        const double most = dtype == at::kFloat ? 2e-5 : 8e-3;
        EXPECT_LT((doubles(got.output[token][head]) - want).abs().max().item<double>(), most) << token << ' ' << head;
        EXPECT_NEAR(got.log_sum_exp[token][head].item<double>(), logits.logsumexp(0).item<double>(), 5e-5);
      }
    }
  }
}

// A head of 131,072 entries, the second of two: its 32 pieces see every entry once. Those at a piece's ends, and the
// head's own, weigh so much in the output that one too few or too many shows.
TEST(KernelSizes, PiecesOf128kEntriesSeeEachOnce) {
  constexpr int64_t kEntries = 131'072, kDim = 8, kBefore = 40;
  ASSERT_EQ(pieces_for(kEntries), 32);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::manual_seed(5);
    const at::Tensor queries = at::randn({1, 2, kDim}).to(dtype);
    const at::Tensor keys = at::randn({kBefore + kEntries, kDim}).mul_(0.3).to(dtype);
    at::Tensor values = at::randn({kBefore + kEntries, kDim});
    for (int64_t piece = 0; piece <= 32; ++piece) {
      const int64_t end = kBefore + kEntries / 32 * piece;
      values.slice(0, end - 1, std::min(end + 1, kBefore + kEntries)).mul_(5000);
    }
    values = values.to(dtype);
    ContextPart part;
    part.keys = keys.const_data_ptr();
    part.values = values.const_data_ptr();
    part.head_offsets[1] = kBefore;
    part.head_offsets[2] = kBefore + kEntries;
    part.most_tokens = 1;
    part.most_entries = kEntries;
    const Merged got = attend_all({number_of(dtype), 1, kDim, 2, 2}, {part}, queries);
    const auto own = [&](const at::Tensor& all) { return all.narrow(0, kBefore, kEntries).to(at::kDouble); };
    const at::Tensor logits = at::mv(own(keys), queries[0][1].to(at::kDouble)) / std::sqrt(double{kDim});
    const at::Tensor want = at::mv(own(values).t(), at::softmax(logits, 0));
    EXPECT_NEAR(got.log_sum_exp[0][1].item<double>(), logits.logsumexp(0).item<double>(), 1e-5);
    EXPECT_LT((got.output[0][1].to(at::kDouble) - want).abs().max().item<double>(), 5e-3);  // one entry: about 0.04
  }
}

// Memory that is there only where it is written to.
class Sparse {
 public:
  explicit Sparse(size_t bytes)
      : bytes_(bytes),
        data_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~Sparse() {
    if (there()) munmap(data_, bytes_);
  }
  Sparse(const Sparse&) = delete;
  Sparse& operator=(const Sparse&) = delete;
  bool there() const { return data_ != MAP_FAILED; }
  char* data() const { return static_cast<char*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

// The last of 128 heads of 131,072 entries each begins 4.3e9 numbers behind the first. It has 70 entries here, the
// others none.
TEST(KernelSizes, TheLastOf128HeadsOf128kEntriesIsFound) {
  constexpr int64_t kFirst = int64_t{127} * 131'072, kDim = 256, kEntries = 70;
  ASSERT_GT(kFirst * kDim, int64_t{1} << 31);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto width = static_cast<int64_t>(at::elementSize(dtype));
    const Sparse keys(static_cast<size_t>((kFirst + kEntries) * kDim * width));
    const Sparse values(static_cast<size_t>((kFirst + kEntries) * kDim * width));
    if (!keys.there() || !values.there()) GTEST_SKIP() << "this system lends no 17 GB of addresses";
    at::manual_seed(3);
    const auto own = [&](const Sparse& all) {
      return at::from_blob(all.data() + kFirst * kDim * width, {kEntries, kDim}, at::TensorOptions(dtype));
    };
    const at::Tensor own_keys = own(keys), own_values = own(values);
    own_keys.copy_(at::randn({kEntries, kDim}));
    own_values.copy_(at::randn({kEntries, kDim}));
    const at::Tensor queries = at::randn({1, 128, kDim}).to(dtype);
    ContextPart part;
    part.keys = keys.data();
    part.values = values.data();
    for (int64_t& offset : part.head_offsets) offset = kFirst;
    part.head_offsets[128] = kFirst + kEntries;
    part.most_tokens = 1;
    part.most_entries = kEntries;
    const Merged got = attend_all({number_of(dtype), 1, kDim, 128, 128}, {part}, queries);
    const at::Tensor logits = at::mv(own_keys.to(at::kDouble), queries[0][127].to(at::kDouble)) / 16.0;
    const at::Tensor want = at::mv(own_values.to(at::kDouble).t(), at::softmax(logits, 0));
    EXPECT_LT((got.output[0][127].to(at::kDouble) - want).abs().max().item<double>(),
              dtype == at::kFloat ? 2e-5 : 8e-3);
    EXPECT_NEAR(got.log_sum_exp[0][127].item<double>(), logits.logsumexp(0).item<double>(), 5e-5);
    EXPECT_TRUE(got.log_sum_exp[0].narrow(0, 0, 127).eq(-INFINITY).all().item<bool>());
    EXPECT_TRUE(got.output[0].narrow(0, 0, 127).eq(0).all().item<bool>());
  }
}

}  // namespace
}  // namespace kvc::emulated_cuda
