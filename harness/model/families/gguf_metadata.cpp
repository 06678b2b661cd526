#include "harness/model/families/gguf_metadata.h"

#include <fmt/format.h>

#include <utility>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/model/families/rope_parameters.h"
#include "harness/model/families/unknown_keys.h"

namespace kvc {
namespace {

constexpr int64_t kMaxSize = 1 << 24;  // of any one dimension: products of three stay far inside int64
const char* const kDamaged = "the file is damaged or made by a faulty converter";
const char* const kOtherModel = "the decoder does not compute this: take another model";

void read_heads(GgufMetadata& metadata, DecoderSpec& spec) {
  spec.n_query_heads = metadata.size("attention.head_count");
  spec.n_kv_heads = metadata.size("attention.head_count_kv", spec.n_query_heads);
  if (spec.n_query_heads % spec.n_kv_heads != 0) {
    metadata.refuse(fmt::format("{} query heads are not a multiple of {} KV heads ({}, head_count_kv)",
                                spec.n_query_heads, spec.n_kv_heads, metadata.full("attention.head_count")),
                    kDamaged);
  }
  if (!metadata.has("attention.key_length") && spec.hidden_size % spec.n_query_heads != 0) {
    metadata.refuse(fmt::format("hidden size {} is not a multiple of {} heads, and {} is missing", spec.hidden_size,
                                spec.n_query_heads, metadata.full("attention.key_length")),
                    kDamaged);
  }
  // Without key_length the quotient is at least 1, or size() refuses it.
  spec.head_dim = metadata.size("attention.key_length", spec.hidden_size / spec.n_query_heads);
  const int64_t value_dim = metadata.size("attention.value_length", spec.head_dim);
  if (value_dim != spec.head_dim || spec.head_dim % 2 != 0) {
    metadata.refuse(fmt::format("a head has {} dimensions of keys and {} of values; the decoder needs them equal and "
                                "even",
                                spec.head_dim, value_dim),
                    kOtherModel);
  }
}

void refuse_what_is_not_computed(GgufMetadata& metadata) {
  const int64_t experts = metadata.integer("expert_count").value_or(0);
  if (experts > 0) {
    metadata.refuse(fmt::format("the model has {} experts ({})", experts, metadata.full("expert_count")), kOtherModel);
  }
  metadata.integer("expert_used_count");  // says nothing where there are no experts
  if (!metadata.boolean("attention.causal").value_or(true)) {
    metadata.refuse(fmt::format("the model's attention is not causal ({})", metadata.full("attention.causal")),
                    kOtherModel);
  }
}

}  // namespace

std::string GgufMetadata::asked(const std::string& key) {
  return *asked_.insert(full(key)).first;
}

void GgufMetadata::refuse(const std::string& fact, const std::string& mend) const {
  throw Error(ErrorKind::kData, fact, file_.path(), mend);
}

int64_t GgufMetadata::size(const std::string& key) {
  const int64_t value = file_.integer(asked(key));
  if (value >= 1 && value <= kMaxSize) return value;
  refuse(fmt::format("metadata key '{}' is {}; 1 to {} is possible", full(key), value, kMaxSize), kDamaged);
}

int64_t GgufMetadata::size(const std::string& key, int64_t otherwise) {
  asked(key);
  if (has(key)) return size(key);
  if (otherwise >= 1 && otherwise <= kMaxSize) return otherwise;
  refuse(fmt::format("metadata key '{}' is missing, and {} follows from the others", full(key), otherwise), kDamaged);
}

double GgufMetadata::positive(const std::string& key) {
  const double value = file_.number(asked(key));
  if (value > 0 && value < 1e30) return value;
  refuse(fmt::format("metadata key '{}' is {}; a positive number is needed", full(key), value), kDamaged);
}

double GgufMetadata::positive(const std::string& key, double otherwise) {
  asked(key);
  return has(key) ? positive(key) : otherwise;
}

std::optional<int64_t> GgufMetadata::integer(const std::string& key) {
  return file_.find_integer(asked(key));
}
std::optional<double> GgufMetadata::number(const std::string& key) {
  return file_.find_number(asked(key));
}
std::optional<std::string> GgufMetadata::text(const std::string& key) {
  return file_.find_string(asked(key));
}
std::optional<bool> GgufMetadata::boolean(const std::string& key) {
  return file_.find_boolean(asked(key));
}

void GgufMetadata::finish() {
  for (const std::string& key : file_.keys()) {
    if (!key.starts_with(prefix_) || asked_.contains(key)) continue;
    const KeyMeaning meaning = meaning_of_key(key.substr(prefix_.size()));
    if (meaning == KeyMeaning::kHarmless) continue;
    const std::string value = file_.shown(key);
    const bool neutral = value == "0" || value == "1" || value == "false" || value == "''";
    if (meaning == KeyMeaning::kChanges && !neutral) {
      refuse(
          fmt::format("metadata key '{}' is {}: the model would be computed wrongly without it", printable(key), value),
          kOtherModel);
    }
    note(fmt::format("metadata key '{}' ({}) is not known and not used", printable(key), value));
  }
}

DecoderSpec read_gguf_numbers(GgufMetadata& metadata) {
  refuse_what_is_not_computed(metadata);
  const GgufFile& file = metadata.file();
  DecoderSpec spec;
  spec.n_layers = metadata.size("block_count");
  spec.hidden_size = metadata.size("embedding_length");
  spec.feed_forward_size = metadata.size("feed_forward_length");
  spec.max_positions = metadata.size("context_length");
  spec.rms_norm_eps = metadata.positive("attention.layer_norm_rms_epsilon");
  read_heads(metadata, spec);
  const StoredTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr) metadata.refuse("tensor 'token_embd.weight' is missing", "convert the model anew");
  spec.vocab_size = embedding->shape.front();
  const int64_t stated = metadata.integer("vocab_size").value_or(spec.vocab_size);
  if (stated != spec.vocab_size) {
    metadata.refuse(fmt::format("{} is {}, but tensor 'token_embd.weight' has {} rows", metadata.full("vocab_size"),
                                stated, spec.vocab_size),
                    kDamaged);
  }
  spec.tied_embeddings = !metadata.has_tensor("output.weight");
  spec.attention_bias = metadata.has_tensor("blk.0.attn_q.bias");
  spec.attention_output_bias = metadata.has_tensor("blk.0.attn_output.bias");
  spec.mlp_bias = metadata.has_tensor("blk.0.ffn_gate.bias");
  read_gguf_rope(metadata, spec);
  const std::string note = limit_to_window(spec, metadata.integer("attention.sliding_window").value_or(0));
  if (!note.empty()) metadata.note(note);
  return spec;
}

std::string limit_to_window(DecoderSpec& spec, int64_t window) {
  if (window <= 0 || window >= spec.max_positions) return "";
  const int64_t before = std::exchange(spec.max_positions, window);
  return fmt::format(
      "the model attends to a sliding window of {} tokens, which is not computed; it changes nothing in texts up to "
      "that length, so these are read, and longer ones (the model knows {} positions) are refused",
      window, before);
}

}  // namespace kvc
