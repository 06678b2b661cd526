// generate() with its steps made in a given way, so that tests can compare the ways.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "harness/model/decode_step.h"
#include "harness/model/generate.h"

namespace kvc {

// Arguments, result and errors as generate()'s. Every step but the first (the prompts') is a DecodeStep of this way,
// without one a Decoder::forward().
std::vector<Generation> generate_by(std::optional<DecodeStep::Way> way, const Model& model, const KvCache& prefix,
                                    const std::vector<std::vector<int64_t>>& prompts, const DecodeSettings& settings,
                                    const std::vector<std::uint64_t>& seeds, const TokenSink& sink = {});

}  // namespace kvc
