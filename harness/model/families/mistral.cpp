// Mistral: Llama without biases, with a sliding window in the first version (see limit_to_window). GGUF files call it
// llama.
#include "harness/model/families/family.h"

namespace kvc {
namespace {

DecoderSpec from_config(ConfigFile& config) {
  // A missing number is that of transformers' MistralConfig; a null one means what it means for Llama.
  const bool says_heads = config.has("num_key_value_heads");
  DecoderSpec spec = read_config_numbers(config, says_heads ? 0 : 8);
  // The same for the window: missing is 4096, null is none.
  if (!config.has("sliding_window")) {
    const std::string note = limit_to_window(spec, 4096);
    if (!note.empty()) config.note(note);
  }
  read_sliding_window(config, true, spec);
  return spec;
}

}  // namespace

ModelFamily mistral_family() {
  return {"mistral", "Mistral 7B and its dense successors (folders)", {"MistralForCausalLM"}, nullptr, from_config};
}

}  // namespace kvc
