// One point of the grid, and the grid itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/kv/head_budget.h"

namespace kvc {

struct SweepConfig;

// As a cell's JSON and other files have it: 0.05, "512 entries", "64 MiB", or null for none.
Json target_json(const std::optional<TargetSize>& target);

struct Cell {
  Json model;    // {name, dtype, chat_template}
  Json dataset;  // {name, options...}, likewise task and method
  Json task;
  Json queries;  // {name, options...}, or null where the method takes none
  Json method;
  std::optional<TargetSize> target;  // nothing where the method takes none
  Json budget;                       // {name, options...}, or null: every head the same, or the method takes none
  std::uint64_t seed = 0;

  // With target: null where there is none, and without a budget where that is null.
  Json to_json() const;
  // Of a record's cell. Throws Error(kData) naming the part that is missing or no plug-in; `where` names the record.
  static Cell from_json(const Json& json, const std::string& where);
  // Hash of the canonical JSON: the same for the same cell whatever the order or spelling in the file, the machine or
  // the folder.
  std::string id() const;
  // "snapkv with context_prefill at 0.05, likelihood on quality": for messages.
  std::string label() const;
};

// All cells; model, seed, dataset, queries, method, target, task from the outside in, each in the order of the file.
std::vector<Cell> expand(const SweepConfig& config);

}  // namespace kvc
