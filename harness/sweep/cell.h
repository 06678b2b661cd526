// One point of the grid, and the grid itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/sweep/sweep_config.h"

namespace kvc {

struct Cell {
  Json model;    // {name, dtype, chat_template}
  Json dataset;  // {name, options...}, likewise task and method
  Json task;
  Json queries;  // {name, options...}, or null where the method takes none
  Json method;
  Json target;  // 0.05 or "512 entries", or null where the method takes none
  Json budget;  // {name, options...}; null where the method takes no target, and for the uniform rule
  std::uint64_t seed = 0;

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
