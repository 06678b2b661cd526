// Llama and what shares its architecture in GGUF ("llama"): Llama 1 to 3.x, SmolLM, TinyLlama, Mistral 7B from v0.2.
// Names and metadata: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>
#include <limits>
#include <string>

#include "harness/core/error.h"
#include "harness/model/families/family.h"
#include "harness/model/families/weight_reader.h"

namespace kvc {
namespace {

constexpr int64_t kMaxSize = 1 << 24;  // of any one dimension: products of three stay far inside int64

// Metadata that are read, or that change nothing here. Anything else under "llama." might ask for a computation that is
// not done.
constexpr std::array kKnownKeys = {"block_count",
                                   "embedding_length",
                                   "feed_forward_length",
                                   "attention.head_count",
                                   "attention.head_count_kv",
                                   "attention.layer_norm_rms_epsilon",
                                   "attention.key_length",
                                   "attention.value_length",
                                   "attention.sliding_window",
                                   "attention.causal",
                                   "context_length",
                                   "vocab_size",
                                   "rope.freq_base",
                                   "rope.dimension_count",
                                   "rope.scale_linear",
                                   "rope.scaling.type",
                                   "rope.scaling.factor",
                                   "rope.scaling.original_context_length",
                                   "rope.scaling.finetuned",
                                   "expert_count",
                                   "expert_used_count",
                                   "tensor_data_layout"};

[[noreturn]] void refuse(const GgufFile& file, const std::string& fact, const std::string& mend) {
  throw Error(ErrorKind::kData, fact, file.path(), mend);
}

const char* const kOtherModel = "the decoder does not compute this: take another model";

int64_t size_of(const GgufFile& file, const std::string& key, int64_t value) {
  if (value < 1 || value > kMaxSize) {
    refuse(file, fmt::format("metadata key 'llama.{}' is {}; 1 to {} is possible", key, value, kMaxSize),
           "the file is damaged or made by a faulty converter");
  }
  return value;
}

int64_t size(const GgufFile& file, const std::string& key) {
  return size_of(file, key, file.integer("llama." + key));
}
int64_t size(const GgufFile& file, const std::string& key, int64_t otherwise) {
  return size_of(file, key, file.find_integer("llama." + key).value_or(otherwise));
}

double positive(const GgufFile& file, const std::string& key, double value) {
  if (!(value > 0) || value > 1e30) {
    refuse(file, fmt::format("metadata key 'llama.{}' is {}; a positive number is needed", key, value),
           "the file is damaged or made by a faulty converter");
  }
  return value;
}

void check_keys(const GgufFile& file) {
  const std::string prefix = "llama.";
  for (const std::string& key : file.keys()) {
    if (!key.starts_with(prefix)) continue;
    if (std::find(kKnownKeys.begin(), kKnownKeys.end(), key.substr(prefix.size())) == kKnownKeys.end()) {
      refuse(file, fmt::format("metadata key '{}' is unknown: a model that needs it would be computed wrongly", key),
             kOtherModel);
    }
  }
  if (file.find_integer("llama.expert_count").value_or(0) > 0) {
    refuse(file, fmt::format("the model has {} experts (llama.expert_count)", file.integer("llama.expert_count")),
           kOtherModel);
  }
  if (!file.find_boolean("llama.attention.causal").value_or(true)) {
    refuse(file, "the model's attention is not causal (llama.attention.causal)", kOtherModel);
  }
  const int64_t window = file.find_integer("llama.attention.sliding_window").value_or(0);
  if (window > 0 && window < file.integer("llama.context_length")) {
    refuse(file,
           fmt::format("the model attends to a sliding window of {} tokens (llama.attention.sliding_window)", window),
           kOtherModel);
  }
}

// Llama 3's scaling is no metadata but the tensor rope_freqs.weight: a divisor for each frequency.
void read_rope(const GgufFile& file, DecoderSpec& spec) {
  spec.rope_base = positive(file, "rope.freq_base", file.find_number("llama.rope.freq_base").value_or(10000.0));
  const int64_t rotated = size(file, "rope.dimension_count", spec.head_dim);
  if (rotated != spec.head_dim) {
    refuse(
        file,
        fmt::format("{} of {} dimensions of a head are rotated (llama.rope.dimension_count)", rotated, spec.head_dim),
        kOtherModel);
  }
  const GgufTensor* divisors = file.find_tensor("rope_freqs.weight");
  if (divisors != nullptr) {
    if (divisors->shape != std::vector<int64_t>{spec.head_dim / 2}) {
      refuse(file, fmt::format("tensor 'rope_freqs.weight' is no row of {} numbers", spec.head_dim / 2),
             "the file is damaged or made by a faulty converter");
    }
    const at::Tensor values = dequantize(*divisors, at::kFloat, file.path()).to(at::kDouble);
    const double* numbers = values.const_data_ptr<double>();
    spec.rope_frequency_divisors.assign(numbers, numbers + values.numel());
    for (const double divisor : spec.rope_frequency_divisors) {
      if (!(divisor > 0))
        refuse(file, fmt::format("tensor 'rope_freqs.weight' holds {}", divisor), "the file is damaged");
    }
    spec.rope_scaling = RopeScaling::kLlama3;
  }
  const std::string type = file.find_string("llama.rope.scaling.type").value_or("none");
  const bool old_linear = !file.has("llama.rope.scaling.type") && file.has("llama.rope.scale_linear");
  if (type != "none" && type != "linear") {
    refuse(file, fmt::format("the model's RoPE scaling '{}' is not supported", type.substr(0, 80)),
           "supported: none, linear, and Llama 3's (rope_freqs.weight)");
  }
  if (type != "linear" && !old_linear) return;
  const std::string key = old_linear ? "rope.scale_linear" : "rope.scaling.factor";
  const double factor = positive(file, key, file.number("llama." + key));
  if (factor == 1.0) return;
  if (divisors != nullptr) refuse(file, "the model has both linear RoPE scaling and rope_freqs.weight", kOtherModel);
  spec.rope_scaling = RopeScaling::kLinear;
  spec.rope_scaling_factor = factor;
}

void read_heads(const GgufFile& file, DecoderSpec& spec) {
  spec.n_query_heads = size(file, "attention.head_count");
  spec.n_kv_heads = size(file, "attention.head_count_kv", spec.n_query_heads);
  if (spec.n_query_heads % spec.n_kv_heads != 0) {
    refuse(file,
           fmt::format("{} query heads are no multiple of {} KV heads (llama.attention.head_count, head_count_kv)",
                       spec.n_query_heads, spec.n_kv_heads),
           "the file is damaged or made by a faulty converter");
  }
  if (!file.has("llama.attention.key_length") && spec.hidden_size % spec.n_query_heads != 0) {
    refuse(file,
           fmt::format("hidden size {} is no multiple of {} heads, and llama.attention.key_length is missing",
                       spec.hidden_size, spec.n_query_heads),
           "the file is damaged or made by a faulty converter");
  }
  spec.head_dim = size(file, "attention.key_length", spec.hidden_size / spec.n_query_heads);
  const int64_t value_dim = size(file, "attention.value_length", spec.head_dim);
  if (value_dim != spec.head_dim || spec.head_dim % 2 != 0) {
    refuse(file,
           fmt::format("a head has {} dimensions of keys and {} of values; the decoder needs them equal and even",
                       spec.head_dim, value_dim),
           kOtherModel);
  }
}

DecoderSpec llama_spec(const GgufFile& file) {
  check_keys(file);
  DecoderSpec spec;
  spec.n_layers = size(file, "block_count");
  if (spec.n_layers > static_cast<int64_t>(file.tensors().size())) {
    refuse(file,
           fmt::format("llama.block_count is {}, but the file has {} tensors", spec.n_layers, file.tensors().size()),
           "the file is damaged or made by a faulty converter");
  }
  spec.hidden_size = size(file, "embedding_length");
  spec.feed_forward_size = size(file, "feed_forward_length");
  spec.max_positions = size(file, "context_length");
  spec.rms_norm_eps =
      positive(file, "attention.layer_norm_rms_epsilon", file.number("llama.attention.layer_norm_rms_epsilon"));
  read_heads(file, spec);
  read_rope(file, spec);
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr) refuse(file, "tensor 'token_embd.weight' is missing", "convert the model anew");
  spec.vocab_size = embedding->shape.front();
  const int64_t stated = file.find_integer("llama.vocab_size").value_or(spec.vocab_size);
  if (stated != spec.vocab_size) {
    refuse(file,
           fmt::format("llama.vocab_size is {}, but tensor 'token_embd.weight' has {} rows", stated, spec.vocab_size),
           "the file is damaged or made by a faulty converter");
  }
  spec.tied_embeddings = file.find_tensor("output.weight") == nullptr;
  spec.attention_bias = file.find_tensor("blk.0.attn_q.bias") != nullptr;
  return spec;
}

// GGUF stores q and k so that neighbours (2j, 2j + 1) are rotated together; the decoder rotates (j, j + d/2). Row j + s
// d/2 of a head is therefore row 2j + s of the file (the inverse of convert_hf_to_gguf.py's permute).
RowMap half_split_rows(int64_t head_dim) {
  return [head_dim, half = head_dim / 2](int64_t row) {
    const int64_t in_head = row % head_dim;
    return row - in_head + 2 * (in_head % half) + in_head / half;
  };
}

LayerWeights read_layer(WeightReader& reader, const DecoderSpec& spec, int64_t index) {
  const std::string prefix = fmt::format("blk.{}.", index);
  const int64_t hidden = spec.hidden_size;
  const int64_t query_rows = spec.n_query_heads * spec.head_dim, kv_rows = spec.n_kv_heads * spec.head_dim;
  const RowMap half_split = half_split_rows(spec.head_dim);
  const auto parts = [&](const std::string& kind) -> std::vector<WeightReader::Part> {
    return {{prefix + "attn_q." + kind, query_rows, half_split},
            {prefix + "attn_k." + kind, kv_rows, half_split},
            {prefix + "attn_v." + kind, kv_rows, {}}};
  };
  LayerWeights layer;
  layer.attention_norm = reader.vector(prefix + "attn_norm.weight", hidden);
  layer.qkv = reader.stacked(parts("weight"), hidden);
  if (spec.attention_bias) layer.qkv_bias = reader.stacked_vectors(parts("bias"));
  layer.attention_output = reader.matrix(prefix + "attn_output.weight", hidden, query_rows);
  layer.feed_forward_norm = reader.vector(prefix + "ffn_norm.weight", hidden);
  layer.gate_up = reader.stacked({{prefix + "ffn_gate.weight", spec.feed_forward_size, {}},
                                  {prefix + "ffn_up.weight", spec.feed_forward_size, {}}},
                                 hidden);
  layer.down = reader.matrix(prefix + "ffn_down.weight", hidden, spec.feed_forward_size);
  return layer;
}

DecoderWeights read_all(WeightReader reader, const DecoderSpec& spec) {
  DecoderWeights weights;
  weights.embedding = reader.matrix("token_embd.weight", spec.vocab_size, spec.hidden_size);
  for (int64_t i = 0; i < spec.n_layers; ++i) weights.layers.push_back(read_layer(reader, spec, i));
  weights.final_norm = reader.vector("output_norm.weight", spec.hidden_size);
  weights.head =
      spec.tied_embeddings ? weights.embedding : reader.matrix("output.weight", spec.vocab_size, spec.hidden_size);
  reader.mark("rope_freqs.weight");  // read into the spec
  reader.finish();
  return weights;
}

DecoderWeights llama_weights(const GgufFile& file, const DecoderSpec& spec, at::ScalarType dtype, at::Device device) {
  read_all(WeightReader(file, WeightReader::Mode::kCheck, dtype, device), spec);
  return read_all(WeightReader(file, WeightReader::Mode::kRead, dtype, device), spec);
}

}  // namespace

ModelFamily llama_family() {
  return {"llama", "Llama 1 to 3.x, SmolLM, TinyLlama, Mistral 7B without sliding window", llama_spec, llama_weights};
}

}  // namespace kvc
