// A summary of a model's files, made without loading the weights.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/files/generation_config.h"
#include "harness/model/decoder_spec.h"

namespace kvc {

struct TensorFact {
  std::string name;  // as in the file, made fit for a terminal
  std::vector<std::int64_t> shape;
  std::string type;  // "BF16", "Q4_K"
  std::int64_t bytes = 0;
};

struct ModelFacts {
  std::string format;  // "gguf", "safetensors"
  std::string architecture;
  DecoderSpec spec;
  std::vector<TensorFact> tensors;
  std::int64_t total_bytes = 0;
  std::int64_t parameters = 0;  // numbers stored
  SamplingDefaults sampling;    // empty for GGUF
  std::vector<std::string> oddities;
  std::string weight_problem;  // why load() would refuse the tensors; "" when it would not
};

// Reads headers only. Throws Error(kData) for a path that is not a model: see Checkpoint.
ModelFacts inspect_model(const std::string& path);

// The numbers of a spec by name; those that do not apply are left out.
Json to_json(const DecoderSpec& spec);

}  // namespace kvc
