// What would stop a sweep or fail in it, found in seconds: data is read, of models only headers and tokenizers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "harness/sweep/sweep_config.h"

namespace kvc {

struct Preflight {
  std::vector<Problem> problems;   // where: "CONFIG, model M" or the data's own file and line
  std::vector<std::string> facts;  // a line for each model and data set that is fine, e.g. "quality: 2 documents, ..."
};

// Checks, of every model: files, header, tokenizer, chat template. Of every data set, with the first seed: all its
// lines, and that each task can ask one of its questions. Of every document: that it fits into each model's positions,
// read twice where a method uses repeat_prefill. Free memory and weights are not looked at.
Preflight check_sweep(const SweepConfig& config);

// The part of it that fails on every document of a model, whatever the data: targets in bytes below the smallest cache,
// budgets' files of another model, calibration texts shorter than a window. A second for each model; one that cannot be
// read is left out.
std::vector<Problem> check_rows(const SweepConfig& config);

// Words of a text: what counts for its tokens where no tokenizer is known.
int64_t count_words(std::string_view text);

}  // namespace kvc
