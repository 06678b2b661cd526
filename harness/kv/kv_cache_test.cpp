#include "harness/kv/kv_cache.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/core/error.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// Heads of the given lengths; every number is different, so that a row in the wrong place shows.
LayerKv layer_of(const std::vector<int64_t>& lengths, bool bias, int64_t head_dim = 4, float first = 0) {
  std::vector<at::Tensor> keys, values, biases;
  for (const int64_t length : lengths) {
    const at::Tensor rows = at::arange(length * head_dim, at::kFloat).view({length, head_dim}) + first;
    keys.push_back(rows);
    values.push_back(-rows);
    biases.push_back(bias ? at::full({length}, first) : at::Tensor());
    first += 100;
  }
  return pack_heads(keys, values, biases);
}

TEST(KvCache, PacksHeadsOfDifferentLengths) {
  const LayerKv layer = layer_of({3, 0, 2}, true);
  EXPECT_THAT(layer.head_offsets, ElementsAre(0, 3, 3, 5));
  EXPECT_EQ(layer.n_entries(), 5);
  EXPECT_EQ(layer.head_len(1), 0);
  EXPECT_EQ(layer.head_keys(2)[1][3].item<float>(), 207);
  EXPECT_EQ(layer.head_values(0)[0][1].item<float>(), -1);
  EXPECT_EQ(layer.head_bias(2)[0].item<float>(), 200);
  EXPECT_EQ(layer.head_keys(1).size(0), 0);
}

TEST(KvCache, HasNoBiasTensorWhenNoHeadHasABias) {
  EXPECT_FALSE(layer_of({3, 2}, false).bias.defined());
  EXPECT_FALSE(layer_of({3, 2}, false).head_bias(0).defined());
  const at::Tensor rows = at::ones({2, 4});
  const LayerKv mixed = pack_heads({rows, rows}, {rows, rows}, {at::Tensor(), at::ones({2})});
  EXPECT_TRUE(at::equal(mixed.bias, at::tensor({0.0F, 0.0F, 1.0F, 1.0F})));
}

TEST(KvCache, CountsEntriesAndBytes) {
  const KvCache cache({layer_of({3, 2}, true), layer_of({1, 4}, false)}, 17);
  EXPECT_EQ(cache.next_position(), 17);
  EXPECT_EQ(cache.n_entries(), 10);
  EXPECT_EQ(cache.head_dim(), 4);
  EXPECT_EQ(cache.n_kv_heads(), 2);
  // 10 entries of 2 x 4 float32, 5 biases, two offset tables of 3.
  EXPECT_EQ(cache.bytes(), 10 * 2 * 4 * 4 + 5 * 4 + 2 * 3 * 8);
  EXPECT_GE(cache.allocated_bytes(), cache.bytes());
}

TEST(KvCache, CountsASharedStorageOnce) {
  const at::Tensor storage = at::zeros({2, 6, 4});
  LayerKv layer;
  layer.keys = storage[0];
  layer.values = storage[1];
  layer.head_offsets = {0, 6};
  const KvCache cache({layer, layer}, 6);
  EXPECT_EQ(cache.bytes(), 2 * (2 * 6 * 4 * 4 + 16));
  EXPECT_EQ(cache.allocated_bytes(), 2 * 6 * 4 * 4 + 2 * 16);
}

TEST(KvCache, CloneSharesNothing) {
  const KvCache cache({layer_of({3, 2}, true)}, 5);
  const KvCache copy = cache.clone();
  copy.layer(0).keys.fill_(7);
  copy.layer(0).bias.fill_(7);
  EXPECT_EQ(cache.layer(0).keys[0][0].item<float>(), 0);
  EXPECT_EQ(cache.layer(0).bias[0].item<float>(), 0);
  EXPECT_EQ(copy.next_position(), 5);
}

TEST(KvCache, RefusesContradictions) {
  const LayerKv good = layer_of({3, 2}, true);
  const auto with = [&](auto&& change) {
    LayerKv layer = good;
    change(layer);
    return [layer] { KvCache({layer}, 1); };
  };
  EXPECT_THAT([] { KvCache({}, 0); }, ThrowsMessage<Error>(HasSubstr("at least one layer")));
  EXPECT_THAT([&] { KvCache({good}, -1); }, ThrowsMessage<Error>(HasSubstr("next position -1 is negative")));
  EXPECT_THAT(with([](LayerKv& l) {
                l.head_offsets = {0, 3};
              }),
              ThrowsMessage<Error>(HasSubstr("keys (5, 4) and values (5, 4) do not hold 3 entries each")));
  EXPECT_THAT(with([](LayerKv& l) {
                l.head_offsets = {0, 4, 3, 5};
              }),
              ThrowsMessage<Error>(HasSubstr("head offsets [0, 4, 3, 5] do not rise from 0")));
  EXPECT_THAT(with([](LayerKv& l) { l.bias = l.bias.narrow(0, 0, 4); }),
              ThrowsMessage<Error>(HasSubstr("bias (4) is not one float32 for each of 5 entries")));
  EXPECT_THAT(with([](LayerKv& l) { l.values = l.values.to(at::kBFloat16); }),
              ThrowsMessage<Error>(HasSubstr("differ in type")));
  EXPECT_THAT([&] { KvCache({good, layer_of({5}, false)}, 1); }, ThrowsMessage<Error>(HasSubstr("layer 1")));
}

TEST(KvCache, EmptyHasNoEntriesAtPositionNought) {
  const KvCache cache = KvCache::empty(2, 3, 8, at::TensorOptions().dtype(at::kBFloat16));
  EXPECT_EQ(cache.n_entries(), 0);
  EXPECT_EQ(cache.next_position(), 0);
  EXPECT_EQ(cache.layer(1).n_kv_heads(), 3);
  EXPECT_EQ(cache.layer(1).keys.scalar_type(), at::kBFloat16);
}

class TailsOf : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor rows(int64_t n, float first) const {
    return (at::arange(n * 2 * 4, at::kFloat).view({n, 2, 4}) + first).to(GetParam());
  }
  Tails tails(int64_t batch, int64_t capacity) const {
    return {1, 2, 4, batch, capacity, at::TensorOptions().dtype(GetParam())};
  }
};

TEST_P(TailsOf, WriteEachSequenceBehindItsOwnEnd) {
  Tails tail = tails(2, 5);
  const at::Tensor first = rows(3, 0), second = rows(3, 100);
  tail.write(0, first, -first, {0, 1, 3});
  EXPECT_THAT(tail.lengths(), ElementsAre(0, 0));
  tail.advance({0, 1, 3});
  tail.write(0, second, -second, {0, 2, 3});
  tail.advance({0, 2, 3});
  EXPECT_THAT(tail.lengths(), ElementsAre(3, 3));
  for (int64_t h = 0; h < 2; ++h) {
    const at::Tensor expected0 = at::cat({first.narrow(0, 0, 1), second.narrow(0, 0, 2)}).select(1, h);
    const at::Tensor expected1 = at::cat({first.narrow(0, 1, 2), second.narrow(0, 2, 1)}).select(1, h);
    EXPECT_TRUE(at::equal(tail.keys(0)[0][h].narrow(0, 0, 3), expected0));
    EXPECT_TRUE(at::equal(tail.keys(0)[1][h].narrow(0, 0, 3), expected1));
    EXPECT_TRUE(at::equal(tail.values(0)[1][h].narrow(0, 0, 3), -expected1));
  }
}

TEST_P(TailsOf, WriteStridedRows) {
  // Values come as a slice of a wider product; and rows whose last dimension is not dense take the general path.
  const at::Tensor wide = at::arange(2 * 3 * 2 * 4, at::kFloat).view({2, 3, 8}).to(GetParam());
  const at::Tensor slice = wide.narrow(1, 1, 1).view({2, 2, 4});
  const at::Tensor turned = rows(2, 0).transpose(1, 2).contiguous().transpose(1, 2);
  Tails tail = tails(1, 2);
  tail.write(0, turned, slice, {0, 2});
  EXPECT_TRUE(at::equal(tail.keys(0)[0].transpose(0, 1), rows(2, 0)));
  EXPECT_TRUE(at::equal(tail.values(0)[0].transpose(0, 1), slice));
}

TEST_P(TailsOf, SelectForksDropsAndGrows) {
  Tails tail = tails(3, 4);
  tail.write(0, rows(6, 0), rows(6, 50), {0, 1, 3, 6});
  tail.advance({0, 1, 3, 6});
  const Tails some = tail.select({2, 0, 2}, 9);
  EXPECT_THAT(some.lengths(), ElementsAre(3, 1, 3));
  EXPECT_EQ(some.capacity(), 9);
  EXPECT_EQ(tail.select({1}).capacity(), 4);
  EXPECT_TRUE(at::equal(some.keys(0)[2].narrow(1, 0, 3), tail.keys(0)[2].narrow(1, 0, 3)));
  EXPECT_TRUE(at::equal(some.values(0)[1].narrow(1, 0, 1), tail.values(0)[0].narrow(1, 0, 1)));
  some.keys(0).fill_(0);
  EXPECT_EQ(tail.keys(0)[2][1][2][3].item<float>(), 47);
  EXPECT_EQ(tail.select({}).batch(), 0);
}

TEST_P(TailsOf, ReserveKeepsWhatIsThere) {
  Tails tail = tails(2, 2);
  tail.write(0, rows(3, 0), rows(3, 0), {0, 1, 3});
  tail.advance({0, 1, 3});
  const at::Tensor before = tail.keys(0)[1].narrow(1, 0, 2).clone();
  tail.reserve(1);
  EXPECT_EQ(tail.capacity(), 2);
  tail.reserve(7);
  EXPECT_EQ(tail.capacity(), 7);
  EXPECT_TRUE(at::equal(tail.keys(0)[1].narrow(1, 0, 2), before));
}

TEST_P(TailsOf, TruncateForgets) {
  Tails tail = tails(2, 4);
  tail.advance({0, 3, 7});
  tail.truncate(1, 2);
  tail.truncate(0, 9);
  EXPECT_THAT(tail.lengths(), ElementsAre(3, 2));
}

TEST_P(TailsOf, IntoCacheSharesFullStorageOnly) {
  for (const int64_t capacity : {3, 5}) {
    Tails tail = tails(1, capacity);
    tail.write(0, rows(3, 0), -rows(3, 0), {0, 3});
    tail.advance({0, 3});
    const void* storage = tail.keys(0).data_ptr();
    const KvCache cache = std::move(tail).into_cache(10);
    EXPECT_EQ(cache.next_position(), 13);
    EXPECT_THAT(cache.layer(0).head_offsets, ElementsAre(0, 3, 6));
    EXPECT_TRUE(at::equal(cache.layer(0).head_keys(1), rows(3, 0).select(1, 1)));
    EXPECT_TRUE(at::equal(cache.layer(0).head_values(0), -rows(3, 0).select(1, 0)));
    EXPECT_EQ(cache.layer(0).keys.data_ptr() == storage, capacity == 3);
  }
}

TEST_P(TailsOf, RefuseWhatDoesNotFit) {
  Tails tail = tails(2, 2);
  EXPECT_THAT(
      [&] {
        tail.write(0, rows(3, 0), rows(3, 0), {0, 3, 3});
      },
      ThrowsMessage<Error>(HasSubstr("sequence 0 needs 3 entries, there is room for 2")));
  EXPECT_THAT(
      [&] {
        tail.write(0, rows(2, 0), rows(2, 0), {0, 2});
      },
      ThrowsMessage<Error>(HasSubstr("offsets [0, 2] do not divide a batch of 2")));
  EXPECT_THAT(
      [&] {
        tail.write(0, rows(3, 0), rows(2, 0), {0, 1, 2});
      },
      ThrowsMessage<Error>(HasSubstr("rows (3, 2, 4)")));
  EXPECT_THAT([&] { (void)std::move(tail).into_cache(0); },
              ThrowsMessage<Error>(HasSubstr("a batch of 2 is not a single cache")));
}

INSTANTIATE_TEST_SUITE_P(Types, TailsOf, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& type) { return std::string(toString(type.param)); });

}  // namespace
}  // namespace kvc
