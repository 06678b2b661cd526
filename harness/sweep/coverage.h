// What of a sweep is there and what is missing, told from its folders alone: no model, no data set, no sweep file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/sweep/cell.h"

namespace kvc {

// sweep.json of a results folder or shard: {version, sweep, config, hash, shard: "3/16" or null, program, cells: [{id,
// label, block, task}]}. `hash` is that of the cells and of the self-proof's length: equal for sweep files that ask for
// the same, wherever weights and data lie. `block` and `task` are keys into documents.json.
Json sweep_json(const SweepConfig& config, const Json& shard);

// Keys of documents.json: of a cell's (model, data set, seed), and of its task.
std::string block_key(const Cell& cell);
std::string task_key(const Json& task);

struct Gap {
  std::string cell_id, label, document_id;
  bool failed = false;     // there is a record, of a failure
  std::int64_t shard = 0;  // 1..Coverage::shards; 0 where the sweep has no shards
};

struct Coverage {
  std::int64_t expected = 0;  // (cell, document) that the sweep has
  std::int64_t shards = 0;    // into which it is divided; 0: it is not, or into different numbers
  std::vector<Gap> gaps;
  std::vector<std::string> unopened;  // "MODEL on DATASET, seed 7": no run has looked at its documents yet
  std::vector<std::string> writers;   // "process 12 on node3 (FOLDER)" that are measuring now
  std::vector<std::string> commands;  // that fill the gaps

  bool complete() const { return gaps.empty() && unopened.empty(); }
};

// Of a results folder and its shards. Where no run has left a sweep.json nothing is expected. Throws Error(kData) when
// two shards belong to different sweep files, naming them.
Coverage coverage_of(const std::string& folder);

// "12 of 80 results are missing: ..." with the commands, in lines; empty when nothing is missing.
std::string coverage_text(const Coverage& coverage);

// A whole JSON file; null when it is missing. Throws Error(kData) when it is no JSON.
Json read_json_of_run(const std::string& path);

// Throws Error(kData), naming both, unless the folders' sweep.json agree; the first one's, or null.
Json common_sweep(const std::vector<std::string>& folders);

}  // namespace kvc
