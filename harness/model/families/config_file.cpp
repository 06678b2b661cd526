#include "harness/model/families/config_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/files/json_file.h"
#include "harness/model/families/gguf_metadata.h"
#include "harness/model/families/rope_parameters.h"
#include "harness/model/families/unknown_keys.h"

namespace kvc {
namespace {

using nlohmann::json;

constexpr int64_t kMaxSize = 1 << 24;
const char* const kDamaged = "the file is damaged or of another model: fetch it again";
const char* const kOtherModel = "the decoder does not compute this: take another model";

std::string shown(const json& value) {
  return printable(value.dump(-1, ' ', true, json::error_handler_t::replace));
}

void read_heads(ConfigFile& config, int64_t kv_heads, int64_t head_dim, DecoderSpec& spec) {
  spec.n_query_heads = config.size("num_attention_heads");
  spec.n_kv_heads = config.size("num_key_value_heads", kv_heads == 0 ? spec.n_query_heads : kv_heads);
  if (spec.n_query_heads % spec.n_kv_heads != 0) {
    config.refuse(fmt::format("{} query heads are not a multiple of {} KV heads (num_attention_heads, "
                              "num_key_value_heads)",
                              spec.n_query_heads, spec.n_kv_heads),
                  kDamaged);
  }
  if (head_dim == 0) head_dim = spec.hidden_size / spec.n_query_heads;
  if (config.find("head_dim") == nullptr && head_dim == spec.hidden_size / spec.n_query_heads &&
      spec.hidden_size % spec.n_query_heads != 0) {
    config.refuse(fmt::format("hidden_size {} is not a multiple of {} heads, and head_dim is missing", spec.hidden_size,
                              spec.n_query_heads),
                  kDamaged);
  }
  spec.head_dim = config.size("head_dim", std::max<int64_t>(head_dim, 1));
  if (spec.head_dim % 2 != 0)
    config.refuse(fmt::format("head_dim is {}; rotation needs pairs", spec.head_dim), kDamaged);
}

void read_rope(ConfigFile& config, DecoderSpec& spec) {
  spec.rope_base = config.positive("rope_theta", 10000.0);
  if (config.positive("partial_rotary_factor", 1) != 1) {
    config.refuse("only a part of each head is rotated (partial_rotary_factor)", kOtherModel);
  }
  if (config.boolean("rope_interleaved", false)) {
    config.refuse("neighbouring dimensions are rotated together (rope_interleaved)", kOtherModel);
  }
  const json* scaling = config.find("rope_scaling");
  const json* current = config.find("rope_parameters");
  if (scaling != nullptr && current != nullptr && *scaling != *current) {
    config.note("both rope_scaling and rope_parameters are set; rope_scaling counts");
  }
  const json* chosen = scaling != nullptr && !scaling->empty() ? scaling : current;
  if (chosen == nullptr || chosen->empty()) return;
  json parameters = *chosen;
  if (!parameters.is_object()) config.refuse("rope_scaling is not an object", kDamaged);
  // Some files write this beside the others; transformers prefers it there.
  if (const json* original = config.find("original_max_position_embeddings")) {
    parameters["original_max_position_embeddings"] = *original;
  }
  read_rope_parameters(parameters, ErrorKind::kData, config.path(), spec);
}

}  // namespace

ConfigFile::ConfigFile(const std::string& folder)
    : ConfigFile(read_json_file(folder + "/config.json"), folder + "/config.json") {}

void ConfigFile::refuse(const std::string& fact, const std::string& mend) const {
  throw Error(ErrorKind::kData, fact, path_, mend);
}

std::string ConfigFile::model_type() const {
  const auto found = value_.find("model_type");
  return found != value_.end() && found->is_string() ? found->get<std::string>() : "";
}

std::vector<std::string> ConfigFile::classes() const {
  const auto found = value_.find("architectures");
  std::vector<std::string> names;
  if (found == value_.end() || !found->is_array()) return names;
  for (const json& name : *found) {
    if (name.is_string()) names.push_back(name.get<std::string>());
  }
  return names;
}

const json* ConfigFile::find(const std::string& key) {
  asked_.insert(key);
  const auto found = value_.find(key);
  return found == value_.end() || found->is_null() ? nullptr : &*found;
}

int64_t ConfigFile::size(const std::string& key) {
  if (find(key) == nullptr) refuse(fmt::format("'{}' is missing", key), "fetch the model's own config.json");
  return size(key, 0);
}

int64_t ConfigFile::size(const std::string& key, int64_t otherwise) {
  const json* value = find(key);
  if (value == nullptr) return otherwise;
  if (value->is_number_integer() && *value >= 1 && *value <= kMaxSize) return value->get<int64_t>();
  refuse(fmt::format("'{}' is {}; a whole number from 1 to {} belongs there", key, shown(*value), kMaxSize), kDamaged);
}

double ConfigFile::positive(const std::string& key, double otherwise) {
  const json* value = find(key);
  if (value == nullptr) return otherwise;
  if (value->is_number() && *value > 0 && *value < 1e30) return value->get<double>();
  refuse(fmt::format("'{}' is {}; a positive number belongs there", key, shown(*value)), kDamaged);
}

bool ConfigFile::boolean(const std::string& key, bool otherwise) {
  const json* value = find(key);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  refuse(fmt::format("'{}' is {}; true or false belongs there", key, shown(*value)), kDamaged);
}

std::string ConfigFile::text(const std::string& key, const std::string& otherwise) {
  const json* value = find(key);
  if (value == nullptr) return otherwise;
  if (value->is_string()) return value->get<std::string>();
  refuse(fmt::format("'{}' is {}; a text belongs there", key, shown(*value)), kDamaged);
}

std::vector<std::string> ConfigFile::texts(const std::string& key) {
  const json* value = find(key);
  std::vector<std::string> list;
  if (value == nullptr) return list;
  for (const json& item : value->is_array() ? *value : json::array({nullptr})) {
    if (!item.is_string()) refuse(fmt::format("'{}' is not a list of texts", key), kDamaged);
    list.push_back(item.get<std::string>());
  }
  return list;
}

void ConfigFile::finish() {
  for (const auto& [key, value] : value_.items()) {
    const KeyMeaning meaning = meaning_of_key(key);
    if (asked_.contains(key) || meaning == KeyMeaning::kHarmless) continue;
    const bool neutral = value.is_null() || value == 0 || value == 1 || value == false || value.empty() || value == "";
    if (meaning == KeyMeaning::kChanges && !neutral) {
      refuse(fmt::format("'{}' is {}: the model would be computed wrongly without it", printable(key), shown(value)),
             kOtherModel);
    }
    if (!value.is_null())
      note(fmt::format("'{}' ({}) in config.json is not known and not used", printable(key), shown(value)));
  }
}

DecoderSpec read_config_numbers(ConfigFile& config, int64_t kv_heads, int64_t head_dim) {
  if (const json* quantised = config.find("quantization_config")) {
    config.refuse(
        fmt::format("the weights are quantised ({})",
                    shown(quantised->is_object() ? quantised->value("quant_method", json("unknown")) : *quantised)),
        "take the model in F32, F16 or BF16, or a GGUF file of it");
  }
  DecoderSpec spec;
  spec.n_layers = config.size("num_hidden_layers");
  spec.hidden_size = config.size("hidden_size");
  spec.feed_forward_size = config.size("intermediate_size");
  spec.vocab_size = config.size("vocab_size");
  spec.max_positions = config.size("max_position_embeddings");
  spec.rms_norm_eps = config.positive("rms_norm_eps", 1e-6);
  spec.tied_embeddings = config.boolean("tie_word_embeddings", false);
  const std::string activation = config.text("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    config.refuse(fmt::format("the activation is '{}' (hidden_act)", printable(activation)), kOtherModel);
  }
  read_heads(config, kv_heads, head_dim, spec);
  read_rope(config, spec);
  return spec;
}

void read_sliding_window(ConfigFile& config, bool active, DecoderSpec& spec, int64_t first_sliding) {
  const int64_t window = config.size("sliding_window", 0);
  const std::vector<std::string> kinds = config.texts("layer_types");
  bool slides = kinds.empty() && first_sliding < spec.n_layers;
  for (const std::string& kind : kinds) {
    if (kind != "full_attention" && kind != "sliding_attention") {
      config.refuse(fmt::format("a layer is of type '{}' (layer_types)", printable(kind)), kOtherModel);
    }
    slides = slides || kind == "sliding_attention";
  }
  if (!slides || (!active && kinds.empty())) return;
  if (window == 0) {
    if (!kinds.empty()) config.refuse("layer_types name sliding layers, and sliding_window is missing", kDamaged);
    return;
  }
  const std::string note = limit_to_window(spec, window);
  if (!note.empty()) config.note(note);
}

void read_qwen_sliding_window(ConfigFile& config, DecoderSpec& spec) {
  constexpr int64_t kQwenDefault = 28;  // transformers' Qwen2Config and Qwen3Config
  const json* first = config.find("max_window_layers");
  if (first != nullptr && !(first->is_number_integer() && *first >= 0 && *first <= kMaxSize)) {
    config.refuse(fmt::format("'max_window_layers' must be a whole number from 0; got {}", shown(*first)), kDamaged);
  }
  read_sliding_window(config, config.boolean("use_sliding_window", false), spec,
                      first == nullptr ? kQwenDefault : first->get<int64_t>());
}

}  // namespace kvc
