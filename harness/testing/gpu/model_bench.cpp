// gpu_bench's steps of a model: prefill, repeat, read, decode.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "harness/attention/ragged_attention.h"
#include "harness/model/decode_step.h"
#include "harness/model/linear.h"
#include "harness/testing/gpu/bench_measure.h"

namespace kvc {
namespace {

class ModelBench : public Measure {
 public:
  using Measure::Measure;

  void run(const std::string& step) {
    if (step == "prefill") return prefill();
    if (step == "read") return read();
    if (step == "repeat") return repeat();
    decode();
  }

 private:
  const Decoder& decoder() {
    if (decoder_) return *decoder_;
    const DecoderSpec& s = spec();
    const double from_hidden = 1.0 / std::sqrt(static_cast<double>(s.hidden_size));
    const at::Tensor ones = at::ones({s.hidden_size}, halves()), head_ones = at::ones({s.head_dim}, halves());
    DecoderWeights weights;
    weights.embedding = normal({s.vocab_size, s.hidden_size}, 0.5);
    for (int64_t l = 0; l < s.n_layers; ++l) {
      LayerWeights layer;
      layer.attention_norm = layer.feed_forward_norm = ones;
      if (s.qk_norm) layer.q_norm = layer.k_norm = head_ones;
      layer.qkv = normal({(s.n_query_heads + 2 * s.n_kv_heads) * s.head_dim, s.hidden_size}, from_hidden);
      layer.attention_output = normal({s.hidden_size, s.n_query_heads * s.head_dim}, from_hidden);
      layer.gate_up = normal({2 * s.feed_forward_size, s.hidden_size}, from_hidden);
      layer.down = normal({s.hidden_size, s.feed_forward_size}, from_hidden);
      weights.layers.push_back(std::move(layer));
    }
    weights.final_norm = ones;
    weights.head = s.tied_embeddings ? weights.embedding : normal({s.vocab_size, s.hidden_size}, from_hidden);
    decoder_.emplace(s, std::move(weights));
    return *decoder_;
  }

  std::vector<int64_t> tokens(int64_t n) const {
    std::vector<int64_t> list;
    for (int64_t i = 0; i < n; ++i) list.push_back(i * 7919 % spec().vocab_size);
    return list;
  }

  double layer_weights() const {
    const DecoderSpec& s = spec();
    const int64_t qkv = (s.n_query_heads + 2 * s.n_kv_heads) * s.head_dim;
    return static_cast<double>(s.hidden_size * (qkv + s.n_query_heads * s.head_dim + 3 * s.feed_forward_size));
  }

  // The layer's products alone, for n rows.
  void products(int64_t n) {
    const LayerWeights& layer = decoder().weights().layers.front();
    const at::Tensor rows = at::zeros({n, spec().hidden_size}, halves());
    const at::Tensor heads = at::zeros({n, spec().n_query_heads * spec().head_dim}, halves());
    const at::Tensor inner = at::zeros({n, spec().feed_forward_size}, halves());
    (void)project(rows, layer.qkv);
    (void)project(heads, layer.attention_output);
    (void)project(rows, layer.gate_up);
    (void)project(inner, layer.down);
  }

  // A layer's attention alone, in the chunks that a prefill reads.
  void attention(int64_t total) {
    const int64_t chunk = decoder().chunk_tokens();
    const at::Tensor keys = at::zeros({1, spec().n_kv_heads, total, spec().head_dim}, halves());
    const LayerKv nothing{at::zeros({0, spec().head_dim}, halves()),
                          at::zeros({0, spec().head_dim}, halves()),
                          {},
                          std::vector<int64_t>(static_cast<size_t>(spec().n_kv_heads) + 1, 0)};
    for (int64_t first = 0; first < total; first += chunk) {
      const int64_t n = std::min(chunk, total - first);
      const at::Tensor queries = at::zeros({n, spec().n_query_heads, spec().head_dim}, halves());
      (void)context_attention(queries, nothing, {keys, keys, {first}, {0, n}});
    }
  }

  void prefill() {
    for (const int64_t n : shape_.prefills) {
      const auto count = static_cast<double>(n), layers = static_cast<double>(spec().n_layers);
      const double of_products = 2 * count * layers * layer_weights();
      const double of_attention =
          2 * count * count * layers * static_cast<double>(spec().n_query_heads * spec().head_dim);
      const std::vector<int64_t> text = tokens(n);
      const Json facts = {{"tokens", n}};
      const double whole = tell(
          "prefill", facts, [&] { (void)decoder().prefill(text); }, 0, of_products + of_attention,
          limits_.bfloat16_flops);
      const double products_s = tell(
          "prefill: one layer's products", facts,
          [&] {
            for (int64_t first = 0; first < n; first += decoder().chunk_tokens())
              products(std::min(decoder().chunk_tokens(), n - first));
          },
          0, of_products / layers, limits_.bfloat16_flops);
      const double attention_s = tell(
          "prefill: one layer's attention", facts, [&] { attention(n); }, 0, of_attention / layers,
          limits_.bfloat16_flops);
      print({{"step", "prefill: parts"},
             {"tokens", n},
             {"products_s", products_s * layers},
             {"attention_s", attention_s * layers},
             {"rest_s", whole - (products_s + attention_s) * layers}});
    }
  }

  // A cache of random entries: every head of `entries`, or around it where ragged, with a bias.
  KvCache cache(int64_t entries, bool ragged) {
    std::vector<LayerKv> layers;
    for (int64_t l = 0; l < spec().n_layers; ++l) {
      LayerKv layer;
      layer.head_offsets = {0};
      for (int64_t h = 0; h < spec().n_kv_heads; ++h) {
        const int64_t own = ragged ? entries / 2 + entries * ((l + h) % 5) / 4 : entries;
        layer.head_offsets.push_back(layer.head_offsets.back() + own);
      }
      layer.keys = normal({layer.n_entries(), spec().head_dim}, 1);
      layer.values = normal({layer.n_entries(), spec().head_dim}, 1);
      if (ragged) layer.bias = at::randn({layer.n_entries()}, floats());
      layers.push_back(std::move(layer));
    }
    return {std::move(layers), shape_.context};
  }

  // Questions over the whole cache and over a compacted one with a bias.
  void read() {
    for (const bool ragged : {false, true}) {
      const KvCache prefix = cache(ragged ? shape_.compact : shape_.context, ragged);
      for (const int64_t batch : shape_.batches) {
        const PackedTokens questions = PackedTokens::pack(
            std::vector<std::vector<int64_t>>(static_cast<size_t>(batch), tokens(shape_.question_tokens)));
        const auto n = static_cast<double>(batch * shape_.question_tokens);
        const double entries = static_cast<double>(prefix.n_entries()) / static_cast<double>(spec().n_kv_heads);
        const double flops = 2 * n * static_cast<double>(spec().n_layers) * layer_weights() +
                             4 * n * entries * static_cast<double>(spec().n_query_heads * spec().head_dim);
        tell(
            "read",
            {{"questions", batch},
             {"tokens", shape_.question_tokens},
             {"entries", prefix.layer(0).n_entries()},
             {"bias", ragged}},
            [&] {
              Tails tails = Tails::behind(prefix, batch, shape_.question_tokens);
              (void)decoder().forward(questions, prefix, tails);
            },
            static_cast<double>(prefix.bytes()), flops, limits_.bfloat16_flops);
      }
    }
  }

  // The context read a second time behind its own cache, as repeat_prefill does for its queries.
  void repeat() {
    const int64_t n = shape_.context, chunk = decoder().chunk_tokens();
    const KvCache full = cache(n, false);
    const std::vector<int64_t> text = tokens(n);
    const auto count = static_cast<double>(n), layers = static_cast<double>(spec().n_layers);
    // Each token sees the whole context and the tokens before it.
    const double of_attention =
        6 * count * count * layers * static_cast<double>(spec().n_query_heads * spec().head_dim);
    tell(
        "repeat_prefill", {{"tokens", n}},
        [&] {
          Tails tails = Tails::behind(full, 1, n);
          for (int64_t first = 0; first < n; first += chunk) {
            const int64_t last = std::min(first + chunk, n);
            (void)decoder().forward(PackedTokens::single({text.begin() + first, text.begin() + last}), full, tails);
          }
        },
        0, 2 * count * layers * layer_weights() + of_attention, limits_.bfloat16_flops);
  }

  void decode() {
    for (const bool ragged : {false, true}) {
      const int64_t entries = ragged ? shape_.compact : shape_.context;
      const KvCache prefix = cache(entries, ragged);
      const double weights = 2 * (static_cast<double>(spec().n_layers) * layer_weights() +
                                  static_cast<double>(spec().vocab_size * spec().hidden_size));
      for (const int64_t batch : shape_.batches) {
        for (const bool graph : {false, true}) {
          if (graph && !decode_graph_obstacle(spec(), halves()).empty()) continue;
          const Json facts = {{"batch", batch}, {"entries", entries}, {"bias", ragged}, {"graph", graph}};
          decode_steps(prefix, batch, graph, facts, weights + static_cast<double>(prefix.bytes()));
        }
      }
    }
  }

  void decode_steps(const KvCache& prefix, int64_t batch, bool graph, const Json& facts, double bytes) {
    Tails tails = Tails::behind(prefix, batch, 512);
    const std::vector<int64_t> next = tokens(batch);
    if (graph) {
      DecodeStep step(decoder(), prefix, DecodeStep::Way::kGraph);
      tell(
          "decode", facts, [&] { (void)step.logits(next, tails); }, bytes, 0, 0);
      return;
    }
    PackedTokens input = PackedTokens::pack(std::vector<std::vector<int64_t>>(static_cast<size_t>(batch), {1}));
    tell(
        "decode", facts, [&] { (void)decoder().logits(decoder().forward(input, prefix, tails)); }, bytes, 0, 0);
  }

  std::optional<Decoder> decoder_;
};

}  // namespace

bool measure_model(const BenchSetting& setting, const std::string& step) {
  ModelBench bench(setting);
  bench.run(step);
  return !bench.failed();
}

}  // namespace kvc
