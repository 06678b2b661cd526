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

// What a step is made of: DecodeStep's tables (which a graph records), or Decoder::forward() and logits(), which
// answers use unless graphs are asked for.
enum class Way { kTables, kForward };

// A step of `batch` sequences; the second, for the first sends tables.
pretended::GpuCounts step_of(Way way, int64_t n_layers, int64_t batch, int64_t entries, bool bias) {
  const Decoder decoder = decoder_of(qwen3_4b(n_layers));
  const KvCache prefix = cache_of(decoder.spec(), entries, bias);
  Tails tails = Tails::behind(prefix, batch, 512);
  DecodeStep step(decoder, prefix, DecodeStep::Way::kEachTime);
  const std::vector<int64_t> tokens(static_cast<size_t>(batch), 7);
  const PackedTokens input = PackedTokens::pack(std::vector<std::vector<int64_t>>(tokens.size(), {7}));
  const auto once = [&] {
    if (way == Way::kTables) return step.logits(tokens, tails);
    return decoder.logits(decoder.forward(input, prefix, tails));
  };
  (void)once();
  (void)pretended::take_gpu_counts();
  (void)once();
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

// Of a layer's share: what three layers take beyond one, halved.
struct Share {
  pretended::GpuCounts one, three;
  Share(Way way, int64_t batch, int64_t entries, bool bias)
      : one(step_of(way, 1, batch, entries, bias)), three(step_of(way, 3, batch, entries, bias)) {}
  int64_t launches() const { return (three.launches - one.launches) / 2; }
  double bytes() const { return static_cast<double>(three.bytes - one.bytes) / 2; }
};

// Behind a compacted cache and behind a whole one.
TEST_F(GpuStep, HasTwelveLaunchesALayer) {
  for (const Way way : {Way::kTables, Way::kForward}) {
    for (const bool bias : {true, false}) {
      for (const int64_t batch : {1, 20, 100}) {
        const Share share(way, batch, bias ? 3000 : 60'000, bias);
        EXPECT_EQ((share.three.launches - share.one.launches) % 2, 0);
        EXPECT_LE(share.launches(), 12) << names_of(share.three);
        EXPECT_LE(share.one.launches - share.launches(), 8)
            << names_of(share.one);  // embedding, norms, logits, numbers
        EXPECT_EQ(share.three.waits, 0);
      }
    }
  }
}

// Weights, cache and tails once each are nearly all that a layer moves at one sequence.
TEST_F(GpuStep, MovesTheBytesOfItsWeightsAndCache) {
  const DecoderSpec s = qwen3_4b(1);
  const double weights = 2.0 * static_cast<double>(s.hidden_size) *
                         static_cast<double>((s.n_query_heads + 2 * s.n_kv_heads) * s.head_dim +
                                             s.n_query_heads * s.head_dim + 3 * s.feed_forward_size);
  const double cache = 6.0 * 3000 * (4.0 * static_cast<double>(s.head_dim) + 4);  // 6: half of the heads half as long
  for (const Way way : {Way::kTables, Way::kForward}) {
    const double moved = Share(way, 1, 3000, true).bytes();
    EXPECT_GT(moved, weights + cache);
    EXPECT_LT(moved, 1.1 * (weights + cache) + 4e6) << weights << " " << cache;
  }
}

// With more sequences: weights once, the prefix once for every 64 rows of a KV head, the tails, and for each piece the
// queries read and its outputs written and read.
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
      for (const Way way : {Way::kTables, Way::kForward}) {
        // With tables the host does not know how full the tails are (2 entries of 512).
        const double room = way == Way::kTables ? 512 : 2, tail_pieces = way == Way::kTables ? 4 : 1;
        const double tails = b * 8 * room * 4 * d;
        const double pieces = (n_pieces + tail_pieces) * b * hq * (2 * d + 2 * 4 * (d + 1));
        const double least = weights + readings * cache + tails + pieces;
        const double moved = Share(way, batch, static_cast<int64_t>(entries), bias).bytes();
        // The rest: hidden states, queries, new keys and values, a few times each.
        EXPECT_GT(moved, 0.98 * least) << batch << (bias ? " biased" : "");
        EXPECT_LT(moved, 1.02 * least + b * 40 * static_cast<double>(s.feed_forward_size)) << batch;
      }
    }
  }
}

// A long text behind a compacted cache: the prefix by the own kernel, as many tokens at a time as 256 MiB of pieces
// allow, the text's own part by the library's kernel. No logits in memory.
TEST_F(GpuStep, ALongTextBehindABiasedCacheGoesThroughKernels) {
  constexpr int64_t kTokens = 8192, kEntries = 60'000;
  const Decoder decoder = decoder_of(qwen3_4b(1));
  const KvCache prefix = cache_of(decoder.spec(), kEntries, true);
  Tails tails = Tails::behind(prefix, 1, kTokens);
  (void)pretended::take_gpu_counts();
  (void)decoder.forward(PackedTokens::single(std::vector<int64_t>(kTokens, 7)), prefix, tails);
  pretended::GpuCounts counts = pretended::take_gpu_counts();
  const int64_t token_bytes = int64_t{32} * 32 * 129 * 4, at_once = (int64_t{256} << 20) / token_bytes;
  const int64_t chunks = (kTokens + at_once - 1) / at_once;
  EXPECT_EQ(counts.by_name["aten::_flash_attention_forward"], 1) << names_of(counts);
  // Attention and merge of each chunk; the layer's rotation, sums with norms, gate and cache.
  EXPECT_NEAR(static_cast<double>(counts.by_name["own kernel"]), static_cast<double>(2 * chunks), 8);
  EXPECT_EQ(counts.by_name["aten::mm"] + counts.by_name["aten::addmm"], 4) << names_of(counts);
  EXPECT_LT(counts.launches, 4 * chunks + 40) << names_of(counts);
  EXPECT_EQ(counts.by_name["aten::logsumexp"], 0) << names_of(counts);
}

}  // namespace
}  // namespace kvc
