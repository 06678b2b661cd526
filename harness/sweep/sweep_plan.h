// What a sweep will take, before it runs: time by stage, memory, bytes on disk, and how it divides into shards.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "harness/sweep/stage_rates.h"
#include "harness/sweep/sweep_blocks.h"

namespace kvc {

struct UnitPlan {
  std::string block_key, document_id, label;  // label: "MODEL, document 'ID' of DATASET"
  Json model, dataset;
  std::uint64_t seed = 0;
  std::vector<CellSeconds> cells;  // of the missing cells, in the order in which they are measured
  double seconds = 0;
};

struct Plan {
  std::int64_t cells = 0, documents = 0;    // documents: (model, data set, seed, document)
  std::int64_t questions = 0, answers = 0;  // of the documents; one answer for each question and cell
  std::int64_t context_tokens = 0, question_tokens = 0;
  std::int64_t records = 0, found = 0;            // all; measured already
  CellSeconds stages;                             // of what is missing
  double load_s = 0, proof_s = 0;                 // paid once in every shard
  std::int64_t host_bytes = 0, device_bytes = 0;  // at the peak; 0: not known, and no device
  double record_bytes = 0;                        // of what is missing
  std::vector<UnitPlan> units;                    // with something missing
  std::int64_t earlier_records = 0;               // that the rates come from
  double calibration_s = 0;                       // that measuring rates took; 0: none were measured
  std::vector<std::string> unknown;               // labels of cells whose time is not known

  double total_s() const { return load_s + proof_s + stages.total(); }
  // Seconds of the slowest of `count` shards.
  double slowest_shard(std::int64_t count) const;
  // The least number of shards whose slowest stays within; nothing when one document alone takes longer.
  std::optional<std::int64_t> shards_within(double seconds) const;
  void operator+=(const Plan& other);  // of another model
};

// Adds records of the folder (and its shards) and of the folders beside it that were measured with this model, on this
// processor, with as many threads. Returns how many.
std::int64_t add_earlier_records(const std::string& folder, const Model& model, StageRates& rates);

// Of one model's blocks, whose documents are loaded.
Plan plan_blocks(const Model& model, const std::vector<const Block*>& blocks, const StageRates& rates,
                 std::int64_t proof_tokens);

struct PlanOptions {
  bool quiet = false;
  bool skip_proof = false;
  std::function<Model(const ModelConfig&)> load_model = Model::load;
};

// Loads models and data sets, measures rates where earlier records do not tell them, writes nothing. Throws as
// run_sweep.
Plan plan_sweep(const SweepConfig& config, const PlanOptions& options);

// For a terminal. `within_s`: a wall time per shard to be met, or 0.
std::string plan_text(const Plan& plan, double within_s = 0);

// "6h", "90m", "1h30m", "45 min", "2.5h", "600s". Throws Error(kUsage).
double parse_duration(const std::string& text);

}  // namespace kvc
