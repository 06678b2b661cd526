#include "harness/testing/tiny_model.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "harness/core/error.h"
#include "harness/testing/spread_model.h"

namespace kvc {

namespace {

constexpr int64_t kBytes = 256;
constexpr int64_t kVocab = 300;
constexpr std::array<const char*, 5> kSpecials = {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"};
constexpr int64_t kControls = 3;  // the last two are text for decode()

class ByteTokenizer final : public Tokenizer {
 public:
  using Tokenizer::encode;
  std::vector<int64_t> encode(const std::vector<Segment>& segments, std::vector<int64_t>* ends) const override {
    std::vector<int64_t> ids;
    int64_t offset = 0;
    if (ends != nullptr) ends->clear();
    for (const Segment& segment : segments) {
      for (size_t at = 0; at < segment.text.size();) {
        const auto [id, length] = next(segment, at);
        ids.push_back(id);
        at += length;
        offset += static_cast<int64_t>(length);
        if (ends != nullptr) ends->push_back(offset);
      }
    }
    return ids;
  }

  std::string token_bytes(int64_t id) const override {
    if (id < 0 || id >= kVocab) {
      throw Error(ErrorKind::kData, fmt::format("token {} is outside the vocabulary of {}", id, kVocab), "tiny model",
                  "");
    }
    if (id < kBytes) return {static_cast<char>(static_cast<unsigned char>(id))};
    return id < kBytes + static_cast<int64_t>(kSpecials.size()) ? kSpecials.at(static_cast<size_t>(id - kBytes)) : "";
  }
  bool is_special(int64_t id) const override { return id >= kBytes && id < kBytes + kControls; }
  int64_t vocab_size() const override { return kVocab; }
  std::optional<int64_t> bos() const override { return kBytes + 2; }
  std::vector<int64_t> end_ids() const override { return {kBytes + 1, kBytes + 2}; }

 private:
  static std::pair<int64_t, size_t> next(const Segment& segment, size_t at) {
    if (segment.control) {
      for (size_t s = 0; s < kSpecials.size(); ++s) {
        const std::string_view spelling = kSpecials.at(s);
        if (segment.text.compare(at, spelling.size(), spelling) == 0) {
          return {kBytes + static_cast<int64_t>(s), spelling.size()};
        }
      }
    }
    return {static_cast<unsigned char>(segment.text[at]), 1};
  }
};

}  // namespace

DecoderSpec tiny_spec(int64_t max_positions) {
  DecoderSpec spec;
  spec.n_layers = 2;
  spec.hidden_size = 48;
  spec.n_query_heads = 4;
  spec.n_kv_heads = 2;
  spec.head_dim = 16;
  spec.feed_forward_size = 96;
  spec.vocab_size = kVocab;
  spec.max_positions = max_positions;
  spec.tied_embeddings = true;
  return spec;
}

KvCache ragged_prefix(at::ScalarType dtype, int64_t longest) {
  at::manual_seed(5);
  std::vector<LayerKv> layers;
  for (const bool bias : {true, false}) {
    std::vector<at::Tensor> keys, values, biases;
    for (const int64_t length : bias ? std::vector<int64_t>{longest, 3} : std::vector<int64_t>{0, 12}) {
      keys.push_back(at::randn({length, 16}).to(dtype));
      values.push_back(at::randn({length, 16}).to(dtype));
      biases.push_back(bias ? at::randn({length}) : at::Tensor());
    }
    layers.push_back(pack_heads(keys, values, biases));
  }
  return {std::move(layers), 90};
}

DecoderWeights random_weights(const DecoderSpec& spec, std::uint64_t seed, at::ScalarType dtype) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  // Scaled so that hidden states keep about unit size and attention has a shape (neither flat nor one-hot).
  const auto normal = [&](std::vector<int64_t> shape, double scale, double mean = 0) {
    return (at::randn(shape, generator, at::kFloat) * scale + mean).to(dtype);
  };
  const int64_t qkv_rows = (spec.n_query_heads + 2 * spec.n_kv_heads) * spec.head_dim;
  const double from_hidden = 1.5 / std::sqrt(static_cast<double>(spec.hidden_size));
  DecoderWeights weights;
  weights.embedding = normal({spec.vocab_size, spec.hidden_size}, 0.5);
  for (int64_t l = 0; l < spec.n_layers; ++l) {
    LayerWeights layer;
    layer.attention_norm = normal({spec.hidden_size}, 0.1, 1);
    layer.qkv = normal({qkv_rows, spec.hidden_size}, from_hidden);
    if (spec.attention_bias) layer.qkv_bias = normal({qkv_rows}, 0.3);
    if (spec.qk_norm) layer.q_norm = normal({spec.head_dim}, 0.1, 1);
    if (spec.qk_norm) layer.k_norm = normal({spec.head_dim}, 0.1, 1);
    layer.attention_output = normal({spec.hidden_size, spec.n_query_heads * spec.head_dim},
                                    1 / std::sqrt(static_cast<double>(spec.n_query_heads * spec.head_dim)));
    if (spec.attention_output_bias) layer.attention_output_bias = normal({spec.hidden_size}, 0.3);
    layer.feed_forward_norm = normal({spec.hidden_size}, 0.1, 1);
    layer.gate_up = normal({2 * spec.feed_forward_size, spec.hidden_size}, from_hidden);
    if (spec.mlp_bias) layer.gate_up_bias = normal({2 * spec.feed_forward_size}, 0.3);
    layer.down =
        normal({spec.hidden_size, spec.feed_forward_size}, 1 / std::sqrt(static_cast<double>(spec.feed_forward_size)));
    if (spec.mlp_bias) layer.down_bias = normal({spec.hidden_size}, 0.3);
    weights.layers.push_back(std::move(layer));
  }
  weights.final_norm = normal({spec.hidden_size}, 0.1, 1);
  weights.head = spec.tied_embeddings ? weights.embedding : normal({spec.vocab_size, spec.hidden_size}, 0.5);
  return weights;
}

DecoderWeights weights_on(const c10::Device& device, DecoderWeights weights) {
  const auto move = [&](at::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.to(device);
  };
  const bool tied = weights.head.is_same(weights.embedding);
  move(weights.embedding);
  for (LayerWeights& layer : weights.layers) {
    for (at::Tensor* tensor : {&layer.attention_norm, &layer.qkv, &layer.qkv_bias, &layer.q_norm, &layer.k_norm,
                               &layer.attention_output, &layer.attention_output_bias, &layer.feed_forward_norm,
                               &layer.gate_up, &layer.gate_up_bias, &layer.down, &layer.down_bias}) {
      move(*tensor);
    }
  }
  move(weights.final_norm);
  move(weights.head);
  if (tied) weights.head = weights.embedding;
  return weights;
}

Model spread_model(std::uint64_t seed, at::ScalarType dtype, const c10::Device& first, const c10::Device& second) {
  const DecoderSpec spec = tiny_spec(512);
  DecoderWeights weights = weights_on(first, random_weights(spec, seed, dtype));
  weights.layers[1] = weights_on(second, random_weights(spec, seed, dtype)).layers[1];
  return {Decoder(spec, std::move(weights)), std::make_unique<ByteTokenizer>(), make_chat_template("chatml"),
          Json{{"file", "tiny model on two devices"}}};
}

Model tiny_model(std::uint64_t seed, at::ScalarType dtype, int64_t max_positions, const c10::Device& device,
                 bool decode_graphs) {
  const DecoderSpec spec = tiny_spec(max_positions);
  Json identity = {{"file", "tiny model"},
                   {"content_hash", fmt::format("tiny-{}-{}", seed, toString(dtype))},
                   {"architecture", "llama"},
                   {"dtype", dtype == at::kFloat ? "float32" : "bfloat16"},
                   {"device", device.is_cuda() ? "cuda" : "cpu"}};
  return {Decoder(spec, weights_on(device, random_weights(spec, seed, dtype))),
          std::make_unique<ByteTokenizer>(),
          make_chat_template("chatml"),
          std::move(identity),
          {},
          decode_graphs};
}

}  // namespace kvc
