// generate() with its steps made in a given way, so that tests can compare the ways.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "harness/model/decode_step.h"
#include "harness/model/generate.h"

namespace kvc {

// Arguments, result and errors as generate()'s; `sink` is for one prefix. Every step but the first (the prompts') is a
// DecodeStep of this way, without one a Decoder::forward().
std::vector<std::vector<Generation>> generate_by(std::optional<DecodeStep::Way> way, const Model& model,
                                                 const std::vector<PrefixPrompts>& parts,
                                                 const DecodeSettings& settings, const TokenSink& sink = {});

// Which rows of a batch go into its next step: those that are still written, and, where rows are dropped at halvings
// only, the ended ones too until no more than half of the rows are written. So a batch of B changes at most log2(B) + 1
// times, where a step recorded for it must be recorded anew.
std::vector<int64_t> rows_to_keep(const std::vector<bool>& going, bool at_halvings);

}  // namespace kvc
