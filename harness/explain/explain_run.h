// Explains the flips of a results folder: loads model and data as the records say, makes the caches again, and writes
// each explanation to explanations/flips.jsonl the moment it is found.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/explain/explain_flip.h"
#include "harness/explain/lost_answers.h"
#include "harness/model/model.h"

namespace kvc {

struct ExplainRequest {
  std::string folder;
  LostAnswerFilter filter;
  int64_t limit = 20;  // flips to explain; 0: all
  ExplainSettings settings;
  std::string model_path;  // empty: as the folder's config.json says
  std::string device = "auto";
  bool again = false;  // explain also what is explained on disk
  bool quiet = false;
  std::function<Model(const ModelConfig&)> load_model = Model::load;
};

struct ExplainResult {
  int64_t n_compared = 0, n_flips = 0;  // answers that the full cache has right; those of them that are lost
  int64_t made = 0, found = 0;          // explained now; on disk before
  int64_t left_out = 0;                 // flips beyond the limit
  std::vector<std::string> failures;    // messages of flips that could not be explained
  std::vector<std::string> notes;
  std::vector<Explanation> explanations;  // of the chosen flips, by cell, document, question
};

// Throws Error: as load_records() and find_lost_answers(); no model file, or one of other weights or dtype than the
// records'; a data set that is another now. SIGINT and SIGTERM end the process; what is explained stays.
ExplainResult explain_results(const ExplainRequest& request);

}  // namespace kvc
