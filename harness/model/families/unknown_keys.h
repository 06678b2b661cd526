// Whether a key of config.json or GGUF metadata that the program does not read may change the computation.
#pragma once

#include <cstdint>
#include <string>

namespace kvc {

enum class KeyMeaning : std::uint8_t {
  kHarmless,  // training, serving, naming: changes no number of the forward pass
  kChanges,   // part of its name belongs to a computation that the decoder does not have
  kUnknown,   // neither; transformers and llama.cpp do not read it for these architectures, so it is reported
};

// `key` without GGUF's architecture prefix.
KeyMeaning meaning_of_key(const std::string& key);

}  // namespace kvc
