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
// read twice where a method uses repeat_prefill. Free memory and weights are not looked at. `of_files`: what is wrong
// already (LoadedSweep), put first among the problems.
Preflight check_sweep(const SweepConfig& config, const std::vector<Problem>& of_files = {});

// What check_sweep() finds of a model without the data, for a run to refuse before it reads weights: a model that is
// missing or cannot be read, targets in bytes below its smallest cache, budgets' files of another model, calibration
// texts shorter than a method's window. A second for each model.
struct ModelProblems {
  const SweepModel* model = nullptr;  // of the config
  std::vector<Problem> problems;
};
std::vector<ModelProblems> check_models(const SweepConfig& config);

// Words of a text: what counts for its tokens where no tokenizer is known.
int64_t count_words(std::string_view text);

}  // namespace kvc
