#include "harness/model/device_plan.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "harness/core/error.h"
#include "harness/model/decoder.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::vector<c10::Device> gpus(int64_t n) {
  std::vector<c10::Device> list;
  for (int64_t i = 0; i < n; ++i) list.emplace_back(c10::kCUDA, static_cast<c10::DeviceIndex>(i));
  return list;
}

// Layers on each device.
std::vector<int64_t> counts(const DecoderSpec& spec, int64_t n) {
  const DevicePlan plan = spread_layers(spec, gpus(n));
  std::vector<int64_t> list(static_cast<size_t>(n), 0);
  for (int64_t l = 0; l < spec.n_layers; ++l) ++list[static_cast<size_t>(plan.of(l).index())];
  EXPECT_TRUE(std::is_sorted(plan.layers.begin(), plan.layers.end(),
                             [](const auto& a, const auto& b) { return a.index() < b.index(); }));
  return list;
}

// Llama-3.1-70B: 80 layers of 856 M numbers, embedding and head of 2.1 G.
TEST(DevicePlan, SharesTheNumbersOfALargeModel) {
  DecoderSpec spec;
  spec.n_layers = 80;
  spec.hidden_size = 8192;
  spec.n_query_heads = 64;
  spec.n_kv_heads = 8;
  spec.head_dim = 128;
  spec.feed_forward_size = 28'672;
  spec.vocab_size = 128'256;
  spec.tied_embeddings = false;
  EXPECT_EQ(counts(spec, 1), (std::vector<int64_t>{80}));
  EXPECT_EQ(counts(spec, 2), (std::vector<int64_t>{39, 41}));
  EXPECT_EQ(counts(spec, 4), (std::vector<int64_t>{18, 21, 20, 21}));
}

TEST(DevicePlan, EveryDeviceGetsALayer) {
  DecoderSpec spec = tiny_spec();
  spec.n_layers = 4;
  spec.vocab_size = 1'000'000;  // the embedding alone is more than a share
  EXPECT_EQ(counts(spec, 3), (std::vector<int64_t>{1, 1, 2}));
  EXPECT_EQ(counts(spec, 4), (std::vector<int64_t>{1, 1, 1, 1}));
  spec.n_layers = 2;
  EXPECT_EQ(counts(spec, 4), (std::vector<int64_t>{1, 1, 0, 0}));
}

TEST(DevicePlan, ChoosesTheDevicesAskedFor) {
  const c10::Device second(c10::kCUDA, 1), cpu(c10::kCPU);
  EXPECT_EQ(choose_devices("1", second, 4), (std::vector<c10::Device>{second}));
  EXPECT_EQ(choose_devices("2", second, 4), (std::vector<c10::Device>{second, c10::Device(c10::kCUDA, 2)}));
  EXPECT_EQ(choose_devices("auto", second, 4).size(), 3U);
  EXPECT_EQ(choose_devices("auto", cpu, 0), (std::vector<c10::Device>{cpu}));
  EXPECT_THAT([&] { (void)choose_devices("4", second, 4); },
              ThrowsMessage<Error>(HasSubstr("from cuda:1 on LibTorch finds 3 GPU(s)")));
  EXPECT_THAT([&] { (void)choose_devices("2", cpu, 0); }, ThrowsMessage<Error>(HasSubstr("the model is on the CPU")));
}

// The meta device holds no numbers, but shapes: a second device that is pretended. It has no attention, so the text is
// followed as far as that.
TEST(DevicePlan, ATextGoesFromOneDeviceToTheNext) {
  const DecoderSpec spec = tiny_spec();
  DecoderWeights weights = random_weights(spec, 5);
  weights.layers[1] = weights_on(c10::Device(c10::kMeta), weights).layers[1];
  const Decoder spread(spec, weights), whole(spec, random_weights(spec, 5));
  EXPECT_TRUE(spread.is_spread());
  EXPECT_FALSE(whole.is_spread());
  EXPECT_EQ(spread.devices().size(), 2U);
  EXPECT_TRUE(spread.options(1).device().is_meta() && spread.options().device().is_cpu());
  const KvCache nothing = spread.empty_cache();
  EXPECT_TRUE(nothing.layer(0).keys.is_cpu() && nothing.layer(1).values.is_meta());
  Tails tails = Tails::behind(nothing, 2, 4), same = Tails::behind(whole.empty_cache(), 2, 4);
  EXPECT_TRUE(tails.keys(0).is_cpu() && tails.keys(1).is_meta());
  const PackedTokens text = PackedTokens::pack({{7, 8}, {9}});
  struct Stop {};
  std::vector<at::Tensor> tapped;
  const auto tap = [&](int64_t layer, const at::Tensor& queries) {
    tapped.push_back(queries.is_meta() ? queries : queries.clone());
    if (layer == 1) throw Stop{};
  };
  EXPECT_THROW((void)spread.forward(text, nothing, tails, tap), Stop);
  ASSERT_EQ(tapped.size(), 2U);
  EXPECT_TRUE(tapped[1].is_meta());
  EXPECT_EQ(tapped[1].sizes(), (at::IntArrayRef{3, spec.n_query_heads, spec.head_dim}));
  (void)whole.forward(text, whole.empty_cache(), same, [&](int64_t layer, const at::Tensor& queries) {
    EXPECT_TRUE(layer == 1 || at::equal(queries, tapped[0]));
  });
  EXPECT_TRUE(at::equal(tails.keys(0).narrow(2, 0, 1), same.keys(0).narrow(2, 0, 1)));
}

TEST(DevicePlan, ALayersPartsMustLieTogether) {
  const DecoderSpec spec = tiny_spec();
  DecoderWeights weights = random_weights(spec, 5);
  weights.layers[1].down = weights.layers[1].down.to(at::kMeta);
  EXPECT_THAT([&] { Decoder(spec, weights); }, ThrowsMessage<Error>(HasSubstr("weight 'layer 1, down'")));
}

}  // namespace
}  // namespace kvc
