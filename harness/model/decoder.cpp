#include "harness/model/decoder.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "harness/attention/ragged_attention.h"
#include "harness/attention/ragged_attention_gpu.h"
#include "harness/core/error.h"
#include "harness/kv/device_numbers.h"
#include "harness/model/decoder_layer.h"

namespace kvc {

namespace {

// --- what the constructor refuses
// -------------------------------------------------------------------------------------------

[[noreturn]] void refuse_weights(const std::string& fact) {
  throw Error(ErrorKind::kData, fact, "model weights",
              "the file is damaged, or its architecture is not the one it names");
}

void check_sizes(const DecoderSpec& spec) {
  const std::pair<const char*, int64_t> sizes[] = {
      {"layers", spec.n_layers},       {"hidden size", spec.hidden_size}, {"query heads", spec.n_query_heads},
      {"KV heads", spec.n_kv_heads},   {"head dimension", spec.head_dim}, {"feed-forward size", spec.feed_forward_size},
      {"vocabulary", spec.vocab_size}, {"positions", spec.max_positions}};
  for (const auto& [name, size] : sizes) {
    if (size < 1) refuse_weights(fmt::format("the model's number for '{}' is {}", name, size));
  }
  if (spec.n_query_heads % spec.n_kv_heads != 0) {
    refuse_weights(fmt::format("{} query heads cannot share {} KV heads evenly", spec.n_query_heads, spec.n_kv_heads));
  }
  if (spec.head_dim % 2 != 0)
    refuse_weights(fmt::format("head dimension {} is odd; rotation needs pairs", spec.head_dim));
}

class ShapeCheck {
 public:
  ShapeCheck(const at::Tensor& reference, std::string prefix) : reference_(reference), prefix_(std::move(prefix)) {}

  void has(const std::string& name, const at::Tensor& weight, const std::vector<int64_t>& shape) const {
    if (!weight.defined()) refuse_weights(fmt::format("weight '{}{}' is missing", prefix_, name));
    if (weight.sizes() != at::IntArrayRef(shape)) {
      refuse_weights(fmt::format("weight '{}{}' has shape ({}); the model's numbers ask for ({})", prefix_, name,
                                 fmt::join(weight.sizes(), ", "), fmt::join(shape, ", ")));
    }
    if (weight.scalar_type() != reference_.scalar_type() || weight.device() != reference_.device()) {
      refuse_weights(fmt::format("weight '{}{}' is {} on {}; {} is {} on {}", prefix_, name,
                                 toString(weight.scalar_type()), weight.device().str(),
                                 prefix_.empty() ? "the embedding" : "the layer's qkv",
                                 toString(reference_.scalar_type()), reference_.device().str()));
    }
  }
  // Wanted exactly when the spec says so.
  void has_if(bool wanted, const std::string& name, const at::Tensor& weight, const std::vector<int64_t>& shape) const {
    if (wanted) return has(name, weight, shape);
    if (weight.defined())
      refuse_weights(fmt::format("weight '{}{}' is there, but the model's numbers know of none", prefix_, name));
  }

 private:
  const at::Tensor& reference_;
  std::string prefix_;
};

void check_weights(const DecoderSpec& spec, const DecoderWeights& weights) {
  const int64_t query_width = spec.n_query_heads * spec.head_dim;
  const int64_t qkv_width = query_width + 2 * spec.n_kv_heads * spec.head_dim;
  const ShapeCheck whole(weights.embedding, "");
  if (!weights.embedding.defined()) refuse_weights("weight 'embedding' is missing");
  if (!weights.embedding.is_floating_point()) refuse_weights("weight 'embedding' is not of a floating-point type");
  whole.has("embedding", weights.embedding, {spec.vocab_size, spec.hidden_size});
  whole.has("final_norm", weights.final_norm, {spec.hidden_size});
  whole.has("head", weights.head, {spec.vocab_size, spec.hidden_size});
  if (static_cast<int64_t>(weights.layers.size()) != spec.n_layers) {
    refuse_weights(fmt::format("weights of {} layers for a model of {}", weights.layers.size(), spec.n_layers));
  }
  for (size_t l = 0; l < weights.layers.size(); ++l) {
    const LayerWeights& layer = weights.layers[l];
    if (!layer.qkv.defined()) refuse_weights(fmt::format("weight 'layer {}, qkv' is missing", l));
    // A layer may lie on another device than the embedding, but not in pieces.
    const ShapeCheck check(layer.qkv, fmt::format("layer {}, ", l));
    if (layer.qkv.scalar_type() != weights.embedding.scalar_type()) {
      refuse_weights(fmt::format("weight 'layer {}, qkv' is {}; the embedding is {}", l,
                                 toString(layer.qkv.scalar_type()), toString(weights.embedding.scalar_type())));
    }
    check.has("attention_norm", layer.attention_norm, {spec.hidden_size});
    check.has("qkv", layer.qkv, {qkv_width, spec.hidden_size});
    check.has_if(spec.attention_bias, "qkv_bias", layer.qkv_bias, {qkv_width});
    check.has_if(spec.qk_norm, "q_norm", layer.q_norm, {spec.head_dim});
    check.has_if(spec.qk_norm, "k_norm", layer.k_norm, {spec.head_dim});
    check.has("attention_output", layer.attention_output, {spec.hidden_size, query_width});
    check.has_if(spec.attention_output_bias, "attention_output_bias", layer.attention_output_bias, {spec.hidden_size});
    check.has("feed_forward_norm", layer.feed_forward_norm, {spec.hidden_size});
    check.has("gate_up", layer.gate_up, {2 * spec.feed_forward_size, spec.hidden_size});
    check.has_if(spec.mlp_bias, "gate_up_bias", layer.gate_up_bias, {2 * spec.feed_forward_size});
    check.has("down", layer.down, {spec.hidden_size, spec.feed_forward_size});
    check.has_if(spec.mlp_bias, "down_bias", layer.down_bias, {spec.hidden_size});
  }
}

int64_t positions_end(const std::vector<int64_t>& positions) {
  return positions.empty() ? 0 : *std::max_element(positions.begin(), positions.end()) + 1;
}

}  // namespace

void check_tokens(const std::vector<int64_t>& tokens, int64_t vocab_size) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      throw Error(ErrorKind::kData,
                  fmt::format("token {} at place {} is outside the vocabulary of {}", tokens[i], i, vocab_size), "",
                  "tokenizer and weights are not of the same model");
    }
  }
}

void check_positions(const std::vector<int64_t>& positions, int64_t max_positions) {
  if (positions.empty()) return;
  const auto [least, most] = std::minmax_element(positions.begin(), positions.end());
  if (*least >= 0 && *most < max_positions) return;
  throw Error(ErrorKind::kData,
              fmt::format("the text reaches position {}, the model was trained on {} positions",
                          *least < 0 ? *least : *most + 1, max_positions),
              "", "use a shorter text, or a model with a longer context");
}

PackedTokens PackedTokens::pack(const std::vector<std::vector<int64_t>>& sequences) {
  PackedTokens packed;
  packed.sequence_offsets.push_back(0);
  for (const std::vector<int64_t>& sequence : sequences) {
    packed.tokens.insert(packed.tokens.end(), sequence.begin(), sequence.end());
    packed.sequence_offsets.push_back(static_cast<int64_t>(packed.tokens.size()));
  }
  return packed;
}

PackedTokens PackedTokens::single(const std::vector<int64_t>& tokens) {
  return pack({tokens});
}

Decoder::Decoder(DecoderSpec spec, DecoderWeights weights) : spec_(std::move(spec)), weights_(std::move(weights)) {
  check_sizes(spec_);
  check_weights(spec_, weights_);
  make_rotary();
}

void Decoder::make_rotary() {
  std::map<std::string, RopeTables> of_device;
  rotary_.clear();
  for (int64_t layer = 0; layer < spec_.n_layers; ++layer) {
    const c10::Device device = options(layer).device();
    const auto [place, is_new] = of_device.try_emplace(device.str());
    if (is_new) place->second = RopeTables(spec_, device);
    rotary_.push_back(place->second);
  }
}

Decoder Decoder::for_text_of(int64_t n_positions) const {
  Decoder other = *this;
  if (spec_.rope_scaling != RopeScaling::kDynamic) return other;
  other.spec_.rope_dynamic_positions = n_positions;
  other.make_rotary();
  return other;
}

Decoder Decoder::single_layer(int64_t layer) const {
  Decoder other = *this;
  other.spec_.n_layers = 1;
  other.weights_.layers = {weights_.layers.at(static_cast<size_t>(layer))};
  other.rotary_ = {rotary(layer)};
  return other;
}

at::TensorOptions Decoder::options() const {
  return weights_.embedding.options();
}

at::TensorOptions Decoder::options(int64_t layer) const {
  return weights_.layers.at(static_cast<size_t>(layer)).qkv.options();
}

bool Decoder::is_spread() const {
  return std::any_of(weights_.layers.begin(), weights_.layers.end(),
                     [&](const LayerWeights& layer) { return layer.qkv.device() != weights_.embedding.device(); });
}

std::vector<c10::Device> Decoder::devices() const {
  std::vector<c10::Device> list = {weights_.embedding.device()};
  for (const LayerWeights& layer : weights_.layers) {
    const c10::Device device = layer.qkv.device();
    if (std::find(list.begin(), list.end(), device) == list.end()) list.push_back(device);
  }
  return list;
}

KvCache Decoder::empty_cache() const {
  std::vector<at::TensorOptions> layers;
  for (int64_t layer = 0; layer < spec_.n_layers; ++layer) layers.push_back(options(layer));
  return KvCache::empty(layers, spec_.n_kv_heads, spec_.head_dim);
}

std::vector<int64_t> Decoder::positions(const PackedTokens& input, const KvCache& prefix, const Tails& tails) const {
  std::vector<int64_t> result;
  result.reserve(input.tokens.size());
  for (size_t b = 0; b + 1 < input.sequence_offsets.size(); ++b) {
    const int64_t first = prefix.next_position() + tails.lengths().at(b);
    for (int64_t i = 0; i < input.sequence_offsets[b + 1] - input.sequence_offsets[b]; ++i) result.push_back(first + i);
  }
  return result;
}

at::Tensor Decoder::embed(const std::vector<int64_t>& tokens) const {
  const c10::InferenceMode inference;
  check_tokens(tokens, spec_.vocab_size);
  return weights_.embedding.index_select(0, device_numbers(tokens, weights_.embedding.device()));
}

// Attention of the new tokens over prefixes and tails, (N, Hq d) model dtype. Writes the tails.
at::Tensor Decoder::attend(const LayerWeights& weights, int64_t layer, const at::Tensor& normed,
                           const std::vector<int64_t>& positions, const std::vector<LayerPart>& parts,
                           const QueryTap& tap) const {
  const at::Tensor qkv = project(normed, weights.qkv, weights.qkv_bias);
  const RotatedHeads heads =
      rotate_heads(qkv, spec_.n_query_heads, spec_.n_kv_heads, weights.q_norm, weights.k_norm, spec_.rms_norm_eps,
                   rotary(layer).covering(positions_end(positions)), positions);
  if (tap) tap(layer, heads.queries);
  const auto attend_part = [&](const LayerPart& part, const at::Tensor& queries, const at::Tensor& keys,
                               const at::Tensor& values) {
    part.tails.write(layer, keys, values, part.sequence_offsets, &gpu::write_tails);
    return context_attention(queries, part.prefix, part.tails.view(layer, part.sequence_offsets));
  };
  const at::Tensor values = values_of(qkv, spec_);
  const int64_t width = spec_.n_query_heads * spec_.head_dim;
  if (parts.size() == 1) {
    return attend_part(parts.front(), heads.queries, heads.keys, values).view({normed.size(0), width});
  }
  std::vector<at::Tensor> outputs;
  int64_t first = 0;
  for (const LayerPart& part : parts) {
    const int64_t n = part.sequence_offsets.back();
    outputs.push_back(attend_part(part, heads.queries.narrow(0, first, n), heads.keys.narrow(0, first, n),
                                  values.narrow(0, first, n)));
    first += n;
  }
  return at::cat(outputs).view({normed.size(0), width});
}

at::Tensor Decoder::run_layer(int64_t layer, const at::Tensor& hidden, const std::vector<int64_t>& positions,
                              const std::vector<int64_t>& sequence_offsets, const LayerKv& prefix, Tails& tails,
                              const QueryTap& tap) const {
  return run_layer(layer, hidden, positions, {{sequence_offsets, prefix, tails}}, tap);
}

at::Tensor Decoder::run_layer(int64_t layer, const at::Tensor& hidden, const std::vector<int64_t>& positions,
                              const std::vector<LayerPart>& parts, const QueryTap& tap) const {
  const c10::InferenceMode inference;
  check_positions(positions, spec_.max_positions);
  int64_t n_rows = 0;
  for (const LayerPart& part : parts) n_rows += part.sequence_offsets.back();
  if (static_cast<int64_t>(positions.size()) != hidden.size(0) || n_rows != hidden.size(0)) {
    throw Error(
        ErrorKind::kInternal,
        fmt::format("{} positions and offsets up to {} for {} hidden states", positions.size(), n_rows, hidden.size(0)),
        fmt::format("run_layer, layer {}", layer), "");
  }
  const LayerWeights& weights = weights_.layers.at(static_cast<size_t>(layer));
  const auto attention = [&](const at::Tensor& normed) {
    return attend(weights, layer, normed, positions, parts, tap);
  };
  return layer_around(attention, weights, spec_.rms_norm_eps, hidden.to(weights.qkv.device()));
}

at::Tensor Decoder::final_norm(const at::Tensor& hidden) const {
  const c10::InferenceMode inference;
  return rms_norm(hidden.to(weights_.final_norm.device()), weights_.final_norm, spec_.rms_norm_eps);
}

at::Tensor Decoder::forward(const PackedTokens& input, const KvCache& prefix, Tails& tails, const QueryTap& tap) const {
  const PrefixPart part{input, prefix, tails};
  return forward({&part, 1}, tap);
}

at::Tensor Decoder::forward(std::span<const PrefixPart> parts) const {
  return forward(parts, {});
}

at::Tensor Decoder::forward(std::span<const PrefixPart> parts, const QueryTap& tap) const {
  return final_norm(run_layers(parts, tap));
}

at::Tensor Decoder::run_layers(std::span<const PrefixPart> parts, const QueryTap& tap) const {
  const c10::InferenceMode inference;
  std::vector<int64_t> tokens, places;
  for (const auto& [input, prefix, tails] : parts) {
    if (prefix.n_layers() != spec_.n_layers || prefix.n_kv_heads() != spec_.n_kv_heads ||
        prefix.head_dim() != spec_.head_dim || tails.n_layers() != spec_.n_layers ||
        tails.batch() + 1 != static_cast<int64_t>(input.sequence_offsets.size())) {
      throw Error(
          ErrorKind::kInternal,
          fmt::format(
              "a prefix of {} layers, {} KV heads, dimension {} and tails of {} layers, {} sequences do not fit "
              "a model of {} layers, {} KV heads, dimension {} and an input of {} sequences",
              prefix.n_layers(), prefix.n_kv_heads(), prefix.head_dim(), tails.n_layers(), tails.batch(),
              spec_.n_layers, spec_.n_kv_heads, spec_.head_dim, input.sequence_offsets.size() - 1),
          "Decoder::forward", "");
    }
    tokens.insert(tokens.end(), input.tokens.begin(), input.tokens.end());
    const std::vector<int64_t> own = positions(input, prefix, tails);
    places.insert(places.end(), own.begin(), own.end());
  }
  check_positions(places, spec_.max_positions);  // before anything is written
  at::Tensor hidden = embed(tokens);
  for (int64_t layer = 0; layer < spec_.n_layers; ++layer) {
    std::vector<LayerPart> own;
    for (const auto& [input, prefix, tails] : parts)
      own.push_back({input.sequence_offsets, prefix.layer(layer), tails});
    hidden = run_layer(layer, hidden, places, own, tap);
  }
  for (const auto& [input, prefix, tails] : parts) tails.advance(input.sequence_offsets);
  return hidden;
}

int64_t Decoder::independent_rows() const {
  return weights_.embedding.is_cpu() && has_few_rows_kernel(weights_.embedding.scalar_type()) ? kFewRows : 1;
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  const c10::InferenceMode inference;
  return project_float(hidden, weights_.head);
}

KvCache Decoder::prefill(const std::vector<int64_t>& tokens, int64_t chunk, const ChunkTap& tap) const {
  const c10::InferenceMode inference;
  const int64_t most = chunk > 0 ? chunk : chunk_tokens();
  const auto total = static_cast<int64_t>(tokens.size());
  if (total > spec_.max_positions) check_positions({total - 1}, spec_.max_positions);  // before any work
  const KvCache prefix = empty_cache();
  Tails tails = Tails::behind(prefix, 1, total);
  for (int64_t first = 0; first < total; first += most) {
    const int64_t last = std::min(first + most, total);
    QueryTap chunk_tap;
    if (tap) chunk_tap = [&](int64_t layer, const at::Tensor& queries) { tap(layer, first, queries); };
    // Head and final norm are left out: nobody asks for the last hidden states of a document.
    const PackedTokens input = PackedTokens::single({tokens.begin() + first, tokens.begin() + last});
    const PrefixPart part{input, prefix, tails};
    (void)run_layers({&part, 1}, chunk_tap);
  }
  return std::move(tails).into_cache(0);
}

}  // namespace kvc
