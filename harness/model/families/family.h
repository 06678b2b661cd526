// A family of models: how its files name sizes and weights. One file a family, and one line in family.cpp's table.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "harness/model/decoder.h"
#include "harness/model/decoder_spec.h"
#include "harness/model/formats/gguf.h"

namespace kvc {

struct ModelFamily {
  std::string name;         // GGUF's general.architecture
  std::string description;  // one line for `kvc list families`
  // Sizes from the metadata. Throws Error(kData) for what is missing, contradictory, or not computed by the decoder.
  DecoderSpec (*spec)(const GgufFile& file);
  // Weights as decoder.h wants them. Throws Error(kData) listing missing, misshapen and left-over tensors.
  DecoderWeights (*weights)(const GgufFile& file, const DecoderSpec& spec, at::ScalarType dtype, at::Device device);
};

const std::vector<ModelFamily>& model_families();

// By general.architecture. Throws Error(kData) that lists what is supported.
const ModelFamily& find_family(const GgufFile& file);

// families/llama.cpp
ModelFamily llama_family();

}  // namespace kvc
