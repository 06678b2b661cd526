#include "harness/model/families/weight_layout.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <vector>

#include "harness/model/families/weight_reader.h"

namespace kvc {
namespace {

// Row j + s d/2 of a head is row 2j + s of the file (the inverse of convert_hf_to_gguf.py's permute).
RowMap half_split_rows(int64_t head_dim) {
  return [head_dim, half = head_dim / 2](int64_t row) {
    const int64_t in_head = row % head_dim;
    return row - in_head + 2 * (in_head % half) + in_head / half;
  };
}

LayerWeights read_layer(WeightReader& reader, const WeightLayout& layout, const DecoderSpec& spec, int64_t index) {
  const std::string prefix = fmt::format(fmt::runtime(layout.layer), index);
  const int64_t hidden = spec.hidden_size, ffn = spec.feed_forward_size;
  const int64_t query_rows = spec.n_query_heads * spec.head_dim, kv_rows = spec.n_kv_heads * spec.head_dim;
  const RowMap rows = layout.rotates_neighbours ? half_split_rows(spec.head_dim) : RowMap();
  const auto name = [&](const std::string& stem, const char* kind = ".weight") { return prefix + stem + kind; };
  const auto qkv = [&](const char* kind) -> std::vector<WeightReader::Part> {
    return {{name(layout.q, kind), query_rows, rows},
            {name(layout.k, kind), kv_rows, rows},
            {name(layout.v, kind), kv_rows, {}}};
  };
  const auto gate_up = [&](const char* kind) -> std::vector<WeightReader::Part> {
    return {{name(layout.gate, kind), ffn, {}}, {name(layout.up, kind), ffn, {}}};
  };
  LayerWeights layer;
  layer.attention_norm = reader.vector(name(layout.attention_norm), hidden);
  layer.qkv = reader.stacked(qkv(".weight"), hidden);
  if (spec.attention_bias) layer.qkv_bias = reader.stacked_vectors(qkv(".bias"));
  if (spec.qk_norm) {
    layer.q_norm = reader.vector(name(layout.q_norm), spec.head_dim);
    layer.k_norm = reader.vector(name(layout.k_norm), spec.head_dim);
  }
  layer.attention_output = reader.matrix(name(layout.attention_output), hidden, query_rows);
  if (spec.attention_output_bias) {
    layer.attention_output_bias = reader.vector(name(layout.attention_output, ".bias"), hidden);
  }
  layer.feed_forward_norm = reader.vector(name(layout.feed_forward_norm), hidden);
  layer.gate_up = reader.stacked(gate_up(".weight"), hidden);
  layer.down = reader.matrix(name(layout.down), hidden, ffn);
  if (spec.mlp_bias) {
    layer.gate_up_bias = reader.stacked_vectors(gate_up(".bias"));
    layer.down_bias = reader.vector(name(layout.down, ".bias"), hidden);
  }
  return layer;
}

DecoderWeights read_all(const TensorSource& source, const WeightLayout& layout, const DecoderSpec& spec,
                        WeightReader reader, const DevicePlan& devices) {
  DecoderWeights weights;
  const std::string embedding = layout.embedding + ".weight", head = layout.head + ".weight";
  weights.embedding = reader.matrix(embedding, spec.vocab_size, spec.hidden_size);
  for (int64_t i = 0; i < spec.n_layers; ++i) {
    reader.send_to(devices.of(i));
    weights.layers.push_back(read_layer(reader, layout, spec, i));
  }
  reader.send_to(devices.home);
  weights.final_norm = reader.vector(layout.final_norm + ".weight", spec.hidden_size);
  if (!spec.tied_embeddings) {
    weights.head = reader.matrix(head, spec.vocab_size, spec.hidden_size);
  } else {
    weights.head = weights.embedding;
    if (source.find_tensor(head) != nullptr) reader.same(head, embedding, {spec.vocab_size, spec.hidden_size});
  }
  for (const StoredTensor& tensor : source.tensors()) {
    // Frequencies follow from the config; GGUF's divisors are read into the spec.
    if (tensor.name.ends_with(".rotary_emb.inv_freq") || tensor.name == "rope_freqs.weight") reader.mark(tensor.name);
  }
  reader.finish();
  return weights;
}

}  // namespace

WeightLayout gguf_layout(bool rotates_neighbours) {
  WeightLayout names;
  names.embedding = "token_embd";
  names.final_norm = "output_norm";
  names.head = "output";
  names.layer = "blk.{}.";
  names.attention_norm = "attn_norm";
  names.q = "attn_q";
  names.k = "attn_k";
  names.v = "attn_v";
  names.q_norm = "attn_q_norm";
  names.k_norm = "attn_k_norm";
  names.attention_output = "attn_output";
  names.feed_forward_norm = "ffn_norm";
  names.gate = "ffn_gate";
  names.up = "ffn_up";
  names.down = "ffn_down";
  names.rotates_neighbours = rotates_neighbours;
  return names;
}

WeightLayout transformers_layout(const TensorSource& source) {
  const bool bare = source.find_tensor("model.embed_tokens.weight") == nullptr &&
                    source.find_tensor("embed_tokens.weight") != nullptr;
  const std::string root = bare ? "" : "model.";
  WeightLayout names;
  names.embedding = root + "embed_tokens";
  names.final_norm = root + "norm";
  names.head = "lm_head";
  names.layer = root + "layers.{}.";
  names.attention_norm = "input_layernorm";
  names.q = "self_attn.q_proj";
  names.k = "self_attn.k_proj";
  names.v = "self_attn.v_proj";
  names.q_norm = "self_attn.q_norm";
  names.k_norm = "self_attn.k_norm";
  names.attention_output = "self_attn.o_proj";
  names.feed_forward_norm = "post_attention_layernorm";
  names.gate = "mlp.gate_proj";
  names.up = "mlp.up_proj";
  names.down = "mlp.down_proj";
  return names;
}

void check_weights(const TensorSource& source, const WeightLayout& layout, const DecoderSpec& spec) {
  // Before names are looked for layer by layer.
  if (spec.n_layers > static_cast<int64_t>(source.tensors().size())) {
    throw Error(
        ErrorKind::kData,
        fmt::format("the model has {} layers, and {} tensors are stored", spec.n_layers, source.tensors().size()),
        source.path(), "the model is damaged or of another architecture than it says: fetch or convert it anew");
  }
  read_all(source, layout, spec, WeightReader(source, WeightReader::Mode::kCheck, at::kFloat, at::kCPU), at::kCPU);
}

DecoderWeights read_weights(const TensorSource& source, const WeightLayout& layout, const DecoderSpec& spec,
                            at::ScalarType dtype, const DevicePlan& devices) {
  check_weights(source, layout, spec);
  return read_all(source, layout, spec, WeightReader(source, WeightReader::Mode::kRead, dtype, devices.home), devices);
}

}  // namespace kvc
