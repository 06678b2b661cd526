// A sweep file: which models, data sets, tasks, queries, methods and targets are combined. README and configs/demo.yaml
// show one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/kv/head_budget.h"
#include "harness/model/model.h"
#include "harness/sweep/cell_plugins.h"
#include "harness/sweep/stop_when.h"

namespace kvc {

struct SweepModel {
  ModelConfig config;  // where the weights are and how they are run
  Json cell;           // {name, dtype, chat_template}: what of it belongs to a cell; no folder, no device
};

// One method with fixed options, and what it is combined with.
struct SweepMethod {
  Json method;                                     // {name, options...}
  std::vector<Json> queries;                       // {name, options...} each; one null where the method takes none
  std::vector<std::optional<TargetSize>> targets;  // one nullopt where the method takes none
  std::vector<Json> budgets;                       // {name, options...} each; null: every head the same
};

// Every plug-in is {name, options...} with all defaults written out.
struct SweepConfig {
  std::string name;
  std::string path;        // of the file it was read from
  std::string results;     // folder of the records
  std::string references;  // folder of the full caches' answers; empty: "references" in `results`
  std::vector<std::uint64_t> seeds;
  int64_t proof_tokens = 512;  // article tokens of the self-proof; 0 = the whole article
  int64_t ask_together = 0;    // AskTogether::caches; 0 = auto
  std::vector<SweepModel> models;
  std::vector<Json> datasets;
  std::vector<Json> tasks;
  std::vector<SweepMethod> methods;
  std::string compare_to;  // method that the report compares all others with: its name or label; empty: the best one
  Json equivalence;        // {METRIC: margin} within which the report calls two methods equivalent; null: its defaults
  // Of the parts above, which they are named by.
  std::shared_ptr<CellPlugins> plugins = std::make_shared<CellPlugins>();
  std::optional<StopWhen> stop_when;             // documents are then measured in an order shuffled by the seed
  std::map<int64_t, std::string> written_bytes;  // targets in bytes, as the file writes them, for messages

  Json to_json() const;  // the sweep as understood
};

// Reads and checks a sweep file (YAML or JSON). Every name and option is looked up in the registries; all problems of
// the file are reported in one Error(kUsage), each with line and cure. No model and no data are touched.
SweepConfig load_sweep(const std::string& path);
SweepConfig parse_sweep(const ConfigText& text);

// A sweep of which files that plug-ins read (a calibration text, a budget's file) may be missing or broken: `sweep` is
// then without the entries that name them, not to be measured, and only good for looking for more.
struct LoadedSweep {
  SweepConfig sweep;
  std::vector<Problem> of_files;
  bool complete() const { return of_files.empty(); }
};

// As load_sweep(), but problems of files are returned: whoever goes on to look at data and models names all together.
LoadedSweep load_sweep_and_files(const std::string& path);

}  // namespace kvc
