// A family of models: how its files name sizes and weights. One file a family, and one line in family.cpp's table.
#pragma once

#include <string>
#include <vector>

#include "harness/files/gguf.h"
#include "harness/model/decoder_spec.h"
#include "harness/model/families/config_file.h"
#include "harness/model/families/gguf_metadata.h"

namespace kvc {

struct ModelFamily {
  std::string name;                  // config.json's model_type, and GGUF's general.architecture where it has one
  std::string description;           // one line for `kvc list families`
  std::vector<std::string> classes;  // the family's names in config.json's "architectures"
  // Sizes from either source. Throw Error(kData) for what is missing, contradictory, or not computed by the decoder.
  // gguf is null for a family that GGUF files cannot tell from another.
  DecoderSpec (*gguf)(GgufMetadata& metadata);
  DecoderSpec (*config)(ConfigFile& config);
  bool gguf_rotates_neighbours = false;  // see WeightLayout

  // The whole of a source, unknown keys judged; oddities that are no errors are appended to `oddities` if given.
  DecoderSpec spec(const GgufFile& file, std::vector<std::string>* oddities = nullptr) const;
  DecoderSpec spec(ConfigFile config, std::vector<std::string>* oddities = nullptr) const;
};

const std::vector<ModelFamily>& model_families();

// By general.architecture; by "architectures", or model_type where those are missing. Throw Error(kData) that lists
// what is supported.
const ModelFamily& find_family(const GgufFile& file);
const ModelFamily& find_family(const ConfigFile& config);

ModelFamily llama_family();    // families/llama.cpp
ModelFamily mistral_family();  // families/mistral.cpp
ModelFamily qwen2_family();    // families/qwen2.cpp
ModelFamily qwen3_family();    // families/qwen3.cpp

}  // namespace kvc
