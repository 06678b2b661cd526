// Qwen3 (dense): RMS norms over each head of q and k, a head dimension of its own, no biases unless asked for.
#include "harness/model/families/family.h"

namespace kvc {
namespace {

DecoderSpec from_gguf(GgufMetadata& metadata) {
  DecoderSpec spec = read_gguf_numbers(metadata);
  spec.qk_norm = true;
  return spec;
}

DecoderSpec from_config(ConfigFile& config) {
  DecoderSpec spec = read_config_numbers(config, config.has("num_key_value_heads") ? 0 : 32, 128);
  spec.qk_norm = true;
  spec.attention_bias = config.boolean("attention_bias", false);
  spec.attention_output_bias = spec.attention_bias;
  read_qwen_sliding_window(config, spec);
  return spec;
}

}  // namespace

ModelFamily qwen3_family() {
  return {"qwen3", "Qwen3 (dense)", {"Qwen3ForCausalLM"}, from_gguf, from_config};
}

}  // namespace kvc
