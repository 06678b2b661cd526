// RoPE and its scaling out of config.json, GGUF metadata, or the user's own option.
// Names and defaults: transformers' modeling_rope_utils; llama.cpp's gguf keys.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "harness/core/error.h"
#include "harness/model/decoder_spec.h"
#include "harness/model/families/gguf_metadata.h"

namespace kvc {

// Sets rope_base (where `parameters` has rope_theta), the scaling and its numbers, and max_positions, from
// transformers' rope_parameters: {rope_type: default | linear | dynamic | llama3 | yarn, factor, ...}; `type` is an
// older name of rope_type. spec.max_positions is max_position_embeddings when called. Afterwards it is what the scaling
// reaches: that times factor (linear, dynamic), original_max_position_embeddings times factor if that is more (yarn).
// Throws Error(kind) at `where`: another type, a key that is not known, a number missing or out of range.
void read_rope_parameters(const nlohmann::json& parameters, ErrorKind kind, const std::string& where,
                          DecoderSpec& spec);

// rope.freq_base, rope.scaling.*, rope.scale_linear and the tensor rope_freqs.weight; spec.head_dim is known.
void read_gguf_rope(GgufMetadata& metadata, DecoderSpec& spec);

// The user's scaling in place of the file's: transformers' keys as in read_rope_parameters. The context before the
// stretch is the file's own, unless original_max_position_embeddings is given. Throws Error(kUsage).
void override_rope(const nlohmann::json& parameters, DecoderSpec& spec);

}  // namespace kvc
