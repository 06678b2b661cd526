#include "harness/model/families/rope_parameters.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "harness/core/printable.h"
#include "harness/model/formats/dequantize.h"
#include "harness/model/rope.h"

namespace kvc {
namespace {

using nlohmann::json;

const char* const kDamaged = "the file is damaged or made by a faulty converter";
const char* const kKnownTypes = "supported: default, linear, dynamic, llama3, yarn";
const std::vector<std::string> kKnownKeys = {"rope_type",
                                             "type",
                                             "rope_theta",
                                             "factor",
                                             "original_max_position_embeddings",
                                             "low_freq_factor",
                                             "high_freq_factor",
                                             "beta_fast",
                                             "beta_slow",
                                             "attention_factor",
                                             "mscale",
                                             "mscale_all_dim",
                                             "truncate",
                                             "partial_rotary_factor",
                                             "finetuned"};

class Reader;
RopeScaling scaling_of(const Reader& reader, const std::string& type);

class Reader {
 public:
  Reader(const json& parameters, ErrorKind kind, const std::string& where)
      : parameters_(parameters), kind_(kind), where_(where) {
    if (!parameters.is_object()) refuse("RoPE parameters are not an object", kKnownTypes);
    scaling_of(*this, type());  // another type has other parameters: name the type
    for (const auto& [key, value] : parameters.items()) {
      if (std::find(kKnownKeys.begin(), kKnownKeys.end(), key) == kKnownKeys.end()) {
        refuse(fmt::format("RoPE parameter '{}' is not known", printable(key)), suggest_name(key, kKnownKeys));
      }
    }
  }

  [[noreturn]] void refuse(const std::string& fact, const std::string& mend) const {
    throw Error(kind_, fact, where_, mend);
  }
  const json* find(const std::string& key) const {
    const auto found = parameters_.find(key);
    return found == parameters_.end() || found->is_null() ? nullptr : &*found;
  }
  double number(const std::string& key, double otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number()) refuse(fmt::format("RoPE parameter '{}' is not a number", key), "write a positive number");
    const double result = value->get<double>();
    if (!(result > 0) || result > 1e30) {
      refuse(fmt::format("RoPE parameter '{}' is {}", key, result), "write a positive number");
    }
    return result;
  }
  double needed(const std::string& key) const {
    if (find(key) == nullptr) refuse(fmt::format("RoPE parameter '{}' is missing", key), "add it");
    return number(key, 0);
  }
  int64_t positions(const std::string& key, int64_t otherwise) const {
    const double result = number(key, static_cast<double>(otherwise));
    if (result != std::floor(result) || result > static_cast<double>(RopeTables::kMostPositions)) {
      refuse(fmt::format("RoPE parameter '{}' is {}", key, result),
             fmt::format("write a whole number up to {}", RopeTables::kMostPositions));
    }
    return static_cast<int64_t>(result);
  }
  std::string type() const {
    const json* value = find("rope_type");
    if (value == nullptr) value = find("type");
    if (value == nullptr) return "default";
    if (!value->is_string()) refuse("RoPE parameter 'rope_type' is not text", kKnownTypes);
    return value->get<std::string>();
  }
  bool flag(const std::string& key, bool otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) refuse(fmt::format("RoPE parameter '{}' is neither true nor false", key), "");
    return value->get<bool>();
  }

 private:
  const json& parameters_;
  ErrorKind kind_;
  const std::string& where_;
};

void read_yarn(const Reader& reader, DecoderSpec& spec) {
  spec.rope_beta_fast = reader.number("beta_fast", 32);
  spec.rope_beta_slow = reader.number("beta_slow", 1);
  if (spec.rope_beta_fast < spec.rope_beta_slow) {
    reader.refuse(fmt::format("RoPE's beta_fast {} is below beta_slow {}", spec.rope_beta_fast, spec.rope_beta_slow),
                  "usual are 32 and 1");
  }
  spec.rope_yarn_truncate = reader.flag("truncate", true);
  spec.rope_attention_factor = reader.number("attention_factor", 0);
  // 0 means "not set" in such files, as it does here.
  const auto scale = [&](const char* key) {
    const json* value = reader.find(key);
    return value != nullptr && value->is_number() && value->get<double>() == 0 ? 0 : reader.number(key, 0);
  };
  spec.rope_mscale = scale("mscale");
  spec.rope_mscale_all_dim = scale("mscale_all_dim");
}

void read_llama3(const Reader& reader, DecoderSpec& spec) {
  spec.rope_low_freq_factor = reader.needed("low_freq_factor");
  spec.rope_high_freq_factor = reader.needed("high_freq_factor");
  if (spec.rope_high_freq_factor <= spec.rope_low_freq_factor) {
    reader.refuse(fmt::format("RoPE's high_freq_factor {} is not above low_freq_factor {}", spec.rope_high_freq_factor,
                              spec.rope_low_freq_factor),
                  "usual are 4 and 1");
  }
}

RopeScaling scaling_of(const Reader& reader, const std::string& type) {
  if (type == "default" || type == "none") return RopeScaling::kNone;
  if (type == "linear") return RopeScaling::kLinear;
  if (type == "dynamic") return RopeScaling::kDynamic;
  if (type == "llama3") return RopeScaling::kLlama3;
  if (type == "yarn") return RopeScaling::kYarn;
  reader.refuse(fmt::format("RoPE scaling '{}' is not supported", printable(type)), kKnownTypes);
}

int64_t times(const Reader& reader, int64_t positions, double factor) {
  const double result = std::floor(static_cast<double>(positions) * factor);
  if (result < 1 || result > static_cast<double>(RopeTables::kMostPositions)) {
    reader.refuse(fmt::format("{} positions stretched by {} are {}; 1 to {} are possible", positions, factor, result,
                              RopeTables::kMostPositions),
                  "take a smaller factor");
  }
  return static_cast<int64_t>(result);
}

void reset_scaling(DecoderSpec& spec) {
  const DecoderSpec fresh;
  spec.rope_scaling = fresh.rope_scaling;
  spec.rope_scaling_factor = fresh.rope_scaling_factor;
  spec.rope_original_max_positions = fresh.rope_original_max_positions;
  spec.rope_frequency_divisors.clear();
}

}  // namespace

void read_rope_parameters(const json& parameters, ErrorKind kind, const std::string& where, DecoderSpec& spec) {
  const Reader reader(parameters, kind, where);
  reset_scaling(spec);
  spec.rope_base = reader.number("rope_theta", spec.rope_base);
  if (reader.number("partial_rotary_factor", 1) != 1) {
    reader.refuse("only a part of each head is rotated (partial_rotary_factor)",
                  "the decoder does not compute this: take another model");
  }
  spec.rope_scaling = scaling_of(reader, reader.type());
  if (spec.rope_scaling == RopeScaling::kNone) return;
  spec.rope_scaling_factor = reader.needed("factor");
  const int64_t stated = spec.max_positions;
  const int64_t original = reader.positions("original_max_position_embeddings", stated);
  switch (spec.rope_scaling) {
    case RopeScaling::kLinear:
      spec.max_positions = times(reader, stated, std::max(1.0, spec.rope_scaling_factor));
      break;
    case RopeScaling::kDynamic:
      spec.rope_original_max_positions = stated;
      spec.max_positions = times(reader, stated, std::max(1.0, spec.rope_scaling_factor));
      break;
    case RopeScaling::kLlama3:
      spec.rope_original_max_positions = original;
      read_llama3(reader, spec);
      break;
    default:
      spec.rope_original_max_positions = original;
      spec.max_positions = std::max(stated, times(reader, original, spec.rope_scaling_factor));
      read_yarn(reader, spec);
  }
}

void override_rope(const json& parameters, DecoderSpec& spec) {
  const std::string where = "model option 'rope_scaling'";
  if (!parameters.contains("rope_type") && !parameters.contains("type")) {
    throw Error(ErrorKind::kUsage, "names no 'rope_type'", where,
                R"(name one: linear, dynamic, llama3 or yarn; for example {"rope_type": "yarn", "factor": 2})");
  }
  const Reader reader(parameters, ErrorKind::kUsage, where);
  // What the weights were trained on before any stretch.
  int64_t original = spec.max_positions;
  if (spec.rope_original_max_positions > 0) original = spec.rope_original_max_positions;
  if (spec.rope_scaling == RopeScaling::kLinear) {
    original = static_cast<int64_t>(static_cast<double>(spec.max_positions) / std::max(1.0, spec.rope_scaling_factor));
  }
  spec.max_positions = std::max<int64_t>(1, reader.positions("original_max_position_embeddings", original));
  read_rope_parameters(parameters, ErrorKind::kUsage, where, spec);
  if (spec.rope_scaling == RopeScaling::kLlama3) {
    spec.max_positions = times(reader, spec.max_positions, std::max(1.0, spec.rope_scaling_factor));
  }
}

namespace {

// Llama 3's scaling is stored as a tensor, not as metadata: a divisor for each frequency.
bool read_divisors(GgufMetadata& metadata, DecoderSpec& spec) {
  const StoredTensor* divisors = metadata.file().find_tensor("rope_freqs.weight");
  if (divisors == nullptr) return false;
  if (divisors->shape != std::vector<int64_t>{spec.head_dim / 2}) {
    metadata.refuse(fmt::format("tensor 'rope_freqs.weight' is not a row of {} numbers", spec.head_dim / 2), kDamaged);
  }
  const at::Tensor values = dequantize(*divisors, at::kFloat, metadata.file().path()).to(at::kDouble);
  const double* numbers = values.const_data_ptr<double>();
  spec.rope_frequency_divisors.assign(numbers, numbers + values.numel());
  for (const double divisor : spec.rope_frequency_divisors) {
    if (!(divisor > 0)) metadata.refuse(fmt::format("tensor 'rope_freqs.weight' holds {}", divisor), kDamaged);
  }
  spec.rope_scaling = RopeScaling::kLlama3;
  return true;
}

// GGUF's rope.scaling.* in transformers' words. llama.cpp multiplies YaRN's own attention factor by attn_factor.
json scaling_parameters(GgufMetadata& metadata, const std::string& type, double factor) {
  json parameters{{"rope_type", type}, {"factor", factor}};
  const double attention =
      metadata.positive("rope.scaling.attn_factor", 1) * metadata.positive("rope.scaling.yarn_attn_factor", 1);
  if (attention != 1 && type != "yarn") {
    metadata.refuse(fmt::format("{} is {} without YaRN", metadata.full("rope.scaling.attn_factor"), attention),
                    "the decoder does not compute this: take another model");
  }
  if (type != "yarn") return parameters;
  if (metadata.has("rope.scaling.original_context_length")) {
    parameters["original_max_position_embeddings"] = metadata.size("rope.scaling.original_context_length");
  }
  if (attention != 1) parameters["attention_factor"] = attention * (0.1 * std::log(std::max(factor, 1.0)) + 1);
  parameters["beta_fast"] = metadata.positive("rope.scaling.yarn_beta_fast", 32);
  parameters["beta_slow"] = metadata.positive("rope.scaling.yarn_beta_slow", 1);
  // Only with their usual values is this the YaRN that is computed here.
  const std::pair<const char*, double> usual[] = {{"rope.scaling.yarn_log_multiplier", 0},
                                                  {"rope.scaling.yarn_ext_factor", 1}};
  for (const auto& [key, value] : usual) {
    const double found = metadata.number(key).value_or(value);
    if (found != value) {
      metadata.refuse(fmt::format("{} is {}", metadata.full(key), found),
                      "the decoder does not compute this: take another model");
    }
  }
  return parameters;
}

}  // namespace

void read_gguf_rope(GgufMetadata& metadata, DecoderSpec& spec) {
  spec.rope_base = metadata.positive("rope.freq_base", 10000.0);
  const int64_t rotated = metadata.size("rope.dimension_count", spec.head_dim);
  if (rotated != spec.head_dim) {
    metadata.refuse(fmt::format("{} of {} dimensions of a head are rotated ({})", rotated, spec.head_dim,
                                metadata.full("rope.dimension_count")),
                    "the decoder does not compute this: take another model");
  }
  const bool divided = read_divisors(metadata, spec);
  std::string type = metadata.text("rope.scaling.type").value_or("none");
  double factor = 1;
  if (metadata.has("rope.scaling.type")) {
    factor = type == "none" ? 1 : metadata.positive("rope.scaling.factor", 1);
  } else if (metadata.has("rope.scale_linear")) {
    factor = metadata.positive("rope.scale_linear");
    type = "linear";
  }
  if (type != "none" && type != "linear" && type != "yarn") {
    metadata.refuse(fmt::format("the model's RoPE scaling '{}' is not supported", printable(type)),
                    "supported: none, linear, yarn, and Llama 3's (rope_freqs.weight)");
  }
  metadata.integer("rope.scaling.original_context_length");
  if (type == "none" || (type == "linear" && factor == 1)) return;
  if (divided) {
    metadata.refuse(fmt::format("the model has both {} RoPE scaling and rope_freqs.weight", type),
                    "the decoder does not compute this: take another model");
  }
  read_rope_parameters(scaling_parameters(metadata, type, factor), ErrorKind::kData, metadata.file().path(), spec);
}

}  // namespace kvc
