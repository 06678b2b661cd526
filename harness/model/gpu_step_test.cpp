// What a step of decoding asks of a GPU: its launches and bytes, counted on a pretended one at a published shape.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "harness/model/decode_step.h"
#include "harness/testing/pretended_gpu.h"

namespace kvc {
namespace {

// Qwen3-4B with fewer layers.
DecoderSpec qwen3_4b(int64_t n_layers) {
  DecoderSpec spec;
  spec.n_layers = n_layers;
  spec.hidden_size = 2560;
  spec.n_query_heads = 32;
  spec.n_kv_heads = 8;
  spec.head_dim = 128;
  spec.feed_forward_size = 9728;
  spec.vocab_size = 151'936;
  spec.max_positions = 131'072;
  spec.qk_norm = true;
  spec.tied_embeddings = true;
  return spec;
}

at::TensorOptions halves() {
  return at::TensorOptions().dtype(at::kBFloat16).device(at::kCUDA, 0);
}

Decoder decoder_of(const DecoderSpec& s) {
  const auto weight = [](at::IntArrayRef shape) { return at::empty(shape, halves()); };
  DecoderWeights weights;
  weights.embedding = weights.head = weight({s.vocab_size, s.hidden_size});
  weights.final_norm = weight({s.hidden_size});
  for (int64_t l = 0; l < s.n_layers; ++l) {
    LayerWeights layer;
    layer.attention_norm = layer.feed_forward_norm = weight({s.hidden_size});
    if (s.qk_norm) layer.q_norm = layer.k_norm = weight({s.head_dim});
    layer.qkv = weight({(s.n_query_heads + 2 * s.n_kv_heads) * s.head_dim, s.hidden_size});
    layer.attention_output = weight({s.hidden_size, s.n_query_heads * s.head_dim});
    layer.gate_up = weight({2 * s.feed_forward_size, s.hidden_size});
    layer.down = weight({s.hidden_size, s.feed_forward_size});
    weights.layers.push_back(std::move(layer));
  }
  return {s, std::move(weights)};
}

// Heads of `entries` entries, half of them shorter; with a bias or none.
KvCache cache_of(const DecoderSpec& spec, int64_t entries, bool bias) {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < spec.n_layers; ++l) {
    LayerKv layer;
    layer.head_offsets = {0};
    for (int64_t h = 0; h < spec.n_kv_heads; ++h) {
      layer.head_offsets.push_back(layer.head_offsets.back() + (h % 2 == 0 ? entries : entries / 2));
    }
    layer.keys = at::empty({layer.n_entries(), spec.head_dim}, halves());
    layer.values = at::empty({layer.n_entries(), spec.head_dim}, halves());
    if (bias) layer.bias = at::empty({layer.n_entries()}, halves().dtype(at::kFloat));
    layers.push_back(std::move(layer));
  }
  return {std::move(layers), 60'000};
}

// A step of `batch` sequences; the second, for the first sends tables.
pretended::GpuCounts step_of(int64_t n_layers, int64_t batch, int64_t entries, bool bias) {
  const Decoder decoder = decoder_of(qwen3_4b(n_layers));
  const KvCache prefix = cache_of(decoder.spec(), entries, bias);
  Tails tails = Tails::behind(prefix, batch, 512);
  DecodeStep step(decoder, prefix, DecodeStep::Way::kEachTime);
  const std::vector<int64_t> tokens(static_cast<size_t>(batch), 7);
  (void)step.logits(tokens, tails);
  (void)pretended::take_gpu_counts();
  (void)step.logits(tokens, tails);
  return pretended::take_gpu_counts();
}

std::string names_of(const pretended::GpuCounts& counts) {
  std::string text;
  for (const auto& [name, n] : counts.by_name) text += name + " " + std::to_string(n) + ", ";
  return text;
}

class GpuStep : public testing::Test {
 protected:
  void SetUp() override {
    if (!pretended::install_gpu()) GTEST_SKIP() << "this LibTorch has CUDA: nothing is pretended beside it";
  }
  const c10::InferenceMode inference_;
};

// Behind a compacted cache and behind a whole one.
TEST_F(GpuStep, HasTwelveLaunchesALayer) {
  for (const bool bias : {true, false}) {
    for (const int64_t batch : {1, 20, 100}) {
      const int64_t entries = bias ? 3000 : 60'000;
      const pretended::GpuCounts one = step_of(1, batch, entries, bias), three = step_of(3, batch, entries, bias);
      EXPECT_EQ((three.launches - one.launches) % 2, 0);
      EXPECT_LE((three.launches - one.launches) / 2, 12) << names_of(three);
      EXPECT_LE(one.launches - (three.launches - one.launches) / 2, 8) << names_of(one);  // embedding, norms, logits
      EXPECT_EQ(three.waits, 0);
    }
  }
}

// Weights, cache and tails once each are nearly all that a layer moves at one sequence.
TEST_F(GpuStep, MovesTheBytesOfItsWeightsAndCache) {
  const DecoderSpec s = qwen3_4b(1);
  const pretended::GpuCounts one = step_of(1, 1, 3000, true), three = step_of(3, 1, 3000, true);
  const double weights = 2.0 * static_cast<double>(s.hidden_size) *
                         static_cast<double>((s.n_query_heads + 2 * s.n_kv_heads) * s.head_dim +
                                             s.n_query_heads * s.head_dim + 3 * s.feed_forward_size);
  const double cache = 6.0 * 3000 * (4.0 * static_cast<double>(s.head_dim) + 4);  // 6: half of the heads half as long
  const double moved = static_cast<double>(three.bytes - one.bytes) / 2;
  EXPECT_GT(moved, weights + cache);
  EXPECT_LT(moved, 1.1 * (weights + cache) + 4e6) << weights << " " << cache;
}

// With more sequences: weights once, the prefix once for every 64 rows of a KV head, the tails (as long as they may
// become), and for each piece the queries read and its outputs written and read.
TEST_F(GpuStep, MovesThePrefixOnceFor64RowsAndWhatSequencesAdd) {
  const DecoderSpec s = qwen3_4b(1);
  const double d = static_cast<double>(s.head_dim), hq = static_cast<double>(s.n_query_heads);
  const double weights =
      2.0 * static_cast<double>(s.hidden_size) *
      ((hq + 2 * static_cast<double>(s.n_kv_heads)) * d + hq * d + 3 * static_cast<double>(s.feed_forward_size));
  for (const bool bias : {true, false}) {
    const double entries = bias ? 3000 : 60'000, n_pieces = bias ? 24 : 32;
    const double cache = 6 * entries * (4 * d + (bias ? 4 : 0));
    for (const int64_t batch : {20, 100}) {
      const auto b = static_cast<double>(batch);
      const double readings = std::ceil(b * 4 / 64);
      const double tails = b * 8 * 512 * 4 * d, pieces = (n_pieces + 4) * b * hq * (2 * d + 2 * 4 * (d + 1));
      const double least = weights + readings * cache + tails + pieces;
      const auto whole = static_cast<int64_t>(entries);
      const double moved =
          static_cast<double>(step_of(3, batch, whole, bias).bytes - step_of(1, batch, whole, bias).bytes) / 2;
      // The rest: hidden states, queries, new keys and values, a few times each.
      EXPECT_GT(moved, 0.98 * least) << batch << (bias ? " biased" : "");
      EXPECT_LT(moved, 1.02 * least + b * 40 * static_cast<double>(s.feed_forward_size)) << batch;
    }
  }
}

}  // namespace
}  // namespace kvc
