// Llama 1 to 3.x and what shares its architecture: SmolLM, SmolLM2, TinyLlama, Mistral in GGUF files.
#include "harness/model/families/family.h"

namespace kvc {
namespace {

DecoderSpec from_config(ConfigFile& config) {
  DecoderSpec spec = read_config_numbers(config);
  spec.attention_bias = config.boolean("attention_bias", false);
  spec.attention_output_bias = spec.attention_bias;
  spec.mlp_bias = config.boolean("mlp_bias", false);
  read_sliding_window(config, true, spec);
  return spec;
}

}  // namespace

ModelFamily llama_family() {
  return {"llama",
          "Llama 1 to 3.x, SmolLM2, TinyLlama; in GGUF files Mistral too",
          {"LlamaForCausalLM", "LLaMAForCausalLM"},
          read_gguf_numbers,
          from_config,
          /*gguf_rotates_neighbours=*/true};
}

}  // namespace kvc
