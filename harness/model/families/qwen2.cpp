// Qwen2 and Qwen2.5: Llama with biases at q, k and v.
#include "harness/model/families/family.h"

namespace kvc {
namespace {

DecoderSpec from_gguf(GgufMetadata& metadata) {
  DecoderSpec spec = read_gguf_numbers(metadata);
  spec.attention_bias = true;
  return spec;
}

DecoderSpec from_config(ConfigFile& config) {
  DecoderSpec spec = read_config_numbers(config, config.has("num_key_value_heads") ? 0 : 32);
  spec.attention_bias = true;
  read_qwen_sliding_window(config, spec);
  return spec;
}

}  // namespace

ModelFamily qwen2_family() {
  return {"qwen2", "Qwen2 and Qwen2.5 (dense)", {"Qwen2ForCausalLM"}, from_gguf, from_config};
}

}  // namespace kvc
