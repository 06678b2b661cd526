#include "harness/model/families/inspect.h"

#include <fmt/format.h>

#include <utility>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/model/families/checkpoint.h"

namespace kvc {
namespace {

const char* name_of(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::kLinear:
      return "linear";
    case RopeScaling::kDynamic:
      return "dynamic";
    case RopeScaling::kLlama3:
      return "llama3";
    case RopeScaling::kYarn:
      return "yarn";
    default:
      return "default";
  }
}

Json rope_to_json(const DecoderSpec& spec) {
  Json rope{{"rope_type", name_of(spec.rope_scaling)}, {"rope_theta", spec.rope_base}};
  const bool divided = !spec.rope_frequency_divisors.empty();
  if (divided) rope["frequency_divisors"] = spec.rope_frequency_divisors;
  if (spec.rope_scaling == RopeScaling::kNone || divided) return rope;
  rope["factor"] = spec.rope_scaling_factor;
  if (spec.rope_original_max_positions > 0) rope["original_max_position_embeddings"] = spec.rope_original_max_positions;
  if (spec.rope_scaling == RopeScaling::kLlama3) {
    rope["low_freq_factor"] = spec.rope_low_freq_factor;
    rope["high_freq_factor"] = spec.rope_high_freq_factor;
  } else if (spec.rope_scaling == RopeScaling::kYarn) {
    rope["beta_fast"] = spec.rope_beta_fast;
    rope["beta_slow"] = spec.rope_beta_slow;
    rope["truncate"] = spec.rope_yarn_truncate;
    if (spec.rope_attention_factor > 0) rope["attention_factor"] = spec.rope_attention_factor;
    if (spec.rope_mscale > 0) rope["mscale"] = spec.rope_mscale;
    if (spec.rope_mscale_all_dim > 0) rope["mscale_all_dim"] = spec.rope_mscale_all_dim;
  }
  return rope;
}

}  // namespace

Json to_json(const DecoderSpec& spec) {
  return Json{{"n_layers", spec.n_layers},
              {"hidden_size", spec.hidden_size},
              {"n_query_heads", spec.n_query_heads},
              {"n_kv_heads", spec.n_kv_heads},
              {"head_dim", spec.head_dim},
              {"feed_forward_size", spec.feed_forward_size},
              {"vocab_size", spec.vocab_size},
              {"max_positions", spec.max_positions},
              {"rms_norm_eps", spec.rms_norm_eps},
              {"rope", rope_to_json(spec)},
              {"tied_embeddings", spec.tied_embeddings},
              {"attention_bias", spec.attention_bias},
              {"attention_output_bias", spec.attention_output_bias},
              {"mlp_bias", spec.mlp_bias},
              {"qk_norm", spec.qk_norm}};
}

ModelFacts inspect_model(const std::string& path) {
  const Checkpoint checkpoint(path);
  ModelFacts facts;
  facts.format = checkpoint.is_folder() ? "safetensors" : "gguf";
  facts.architecture = checkpoint.family().name;
  facts.spec = checkpoint.spec();
  facts.total_bytes = checkpoint.weight_bytes();
  facts.oddities = checkpoint.oddities();
  for (const StoredTensor& tensor : checkpoint.tensors().tensors()) {
    const auto bytes = static_cast<int64_t>(tensor.bytes.size());
    facts.tensors.push_back({printable(tensor.name), tensor.shape, tensor.type->name, bytes});
    facts.parameters += bytes / tensor.type->block_bytes * tensor.type->block_values;
  }
  if (checkpoint.is_folder()) facts.sampling = read_generation_config(path);
  if (const double penalty = facts.sampling.repetition_penalty.value_or(1.0); penalty != 1.0) {
    facts.oddities.push_back(
        fmt::format("generation_config.json proposes repetition_penalty {}; it is not applied", penalty));
  }
  try {
    checkpoint.check_weights();
  } catch (const Error& error) {
    facts.weight_problem = error.what();
  }
  return facts;
}

}  // namespace kvc
