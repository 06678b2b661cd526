// How a model's makers let it write: the folder's generation_config.json.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace kvc {

// What the file says; empty where it says nothing. transformers' own defaults are not filled in.
struct SamplingDefaults {
  std::optional<bool> do_sample;  // false: greedy, whatever the numbers below
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<std::int64_t> top_k;
  std::vector<std::int64_t> end_ids;  // eos_token_id, one or several

  nlohmann::ordered_json to_json() const;  // the fields that are set
};

// generation_config.json of the folder; all empty where there is none. Throws Error(kData) for a damaged file or a
// number out of its range.
SamplingDefaults read_generation_config(const std::string& folder);

}  // namespace kvc
