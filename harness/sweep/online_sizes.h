// Sizes and seconds of answers that were compacted while they were written.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/model/decoder_spec.h"

namespace kvc {

struct OnlineCost {
  Json sizes = Json::object();  // as a record has them, means over the samples of all answers
  double compaction_s = 0;      // of all samples, queries included
  double drift_s = 0;           // of all samples: comparisons with the uncompacted cache
};

// From the fields prompt_tokens and samples[]: {next_position, peak_entries, final_entries, final_bytes, compactions[]:
// {seconds, drift_s}} of each answer. What is kept is the cache at the end of a text against one of all its tokens.
// element_bytes: of a key's number.
OnlineCost online_cost(const std::vector<Json>& answers, const DecoderSpec& spec, std::int64_t element_bytes);

}  // namespace kvc
