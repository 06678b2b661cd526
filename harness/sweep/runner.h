// Runs a sweep: model > seed > data set > document > prefill (once) > queries (once per source) > compaction (one call
// per method for all targets) > tasks. Every record is on disk before the next is measured; what is there is never
// measured again.
#pragma once

#include <functional>
#include <string>

#include "harness/sweep/record.h"
#include "harness/sweep/sweep_config.h"

namespace kvc {

struct RunOptions {
  bool quiet = false;
  bool skip_proof = false;  // stamped into every record
  std::function<Model(const ModelConfig&)> load_model = Model::load;
  std::function<void(const Record&)> after_record;  // called when a record is on disk
};

struct RunSummary {
  int64_t already_done = 0;  // records found
  int64_t measured = 0;      // done in this run
  int64_t failed = 0;        // failed in this run; tried again by the next
};

// Writes to config.results. Throws Error: folder locked or unwritable, model or data set unreadable, records of other
// weights or data in the folder, self-proof failed. SIGINT and SIGTERM end the process with exit code 130.
RunSummary run_sweep(const SweepConfig& config, const RunOptions& options);

// How far a sweep is, without touching model or data: cells, and how many documents of each are done.
struct CellStatus {
  std::string id;
  std::string label;
  int64_t done = 0;
};
std::vector<CellStatus> sweep_status(const SweepConfig& config);

}  // namespace kvc
