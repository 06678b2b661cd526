// Runs a sweep: model > seed > data set > document > prefill (once) > queries (once per source) > compaction (one call
// per method for all targets) > tasks. Every record is on disk before the next is measured, those of caches that are
// asked in one batch (SweepConfig::ask_together) before the next batch; what is there is never measured again.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "harness/core/progress.h"
#include "harness/model/device_care.h"
#include "harness/sweep/record.h"
#include "harness/sweep/shard.h"
#include "harness/sweep/stop_rule.h"
#include "harness/sweep/sweep_config.h"

namespace kvc {

struct RunOptions {
  bool quiet = false;
  bool skip_proof = false;  // stamped into every record
  // Measures its part only, into shards/K-of-N of the results folder; what the folder or any of its shards has is
  // found.
  std::optional<Shard> shard = {};
  // Measures rates first where earlier records do not tell them, so that the progress line knows the time left.
  bool plan = false;
  // Makes the rule of a sweep with stop_when, for each block; run_sweep throws where the sweep has one and this is not
  // set. What the rule says of cells that it stops goes to stopped.json.
  MakeStopRule stop_rule = {};
  // No document is begun that would not end within so many seconds, going by the longest so far; 0: no limit.
  double within_s = 0;
  std::function<Model(const ModelConfig&)> load_model = Model::load;
  Progress* progress = nullptr;                     // told what goes on; null: one of its own, on stderr unless `quiet`
  std::function<void(const Record&)> after_record;  // called when a record is on disk
  std::optional<DeviceCare> device = {};            // in place of that of the model's device, for tests
  // What a reader sees of the first document while the others are measured; "" for nothing.
  std::function<std::string()> first_look = {};
};

struct RunSummary {
  int64_t already_done = 0;  // records found
  int64_t measured = 0;      // done in this run
  int64_t failed = 0;        // failed in this run; tried again by the next
  double planned_s = 0;      // of self-proof and measuring; 0 without a plan
  double took_s = 0;         // the same, as it was
  bool planned_all = true;   // false: the plan knew nothing of some cells
  bool out_of_time = false;  // within_s was over before the sweep was
};

// Where a run writes its records: config.results, or the shard's folder in it.
std::string records_folder(const SweepConfig& config, const std::optional<Shard>& shard);

// Writes to records_folder(). Throws Error: folder locked or unwritable, model or data set unreadable, records of other
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
