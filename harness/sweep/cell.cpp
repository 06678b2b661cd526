#include "harness/sweep/cell.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/core/stable_hash.h"
#include "harness/sweep/sweep_config.h"

namespace kvc {
namespace {

// Query sources in the order in which the methods first name them: cells that share one stand together.
std::vector<Json> all_queries(const SweepConfig& config) {
  std::vector<Json> list;
  for (const SweepMethod& method : config.methods) {
    for (const Json& queries : method.queries) {
      if (std::find(list.begin(), list.end(), queries) == list.end()) list.push_back(queries);
    }
  }
  return list;
}

void expand_methods(const SweepConfig& config, const Cell& outer, std::vector<Cell>& cells) {
  for (const Json& queries : all_queries(config)) {
    for (const SweepMethod& method : config.methods) {
      if (std::find(method.queries.begin(), method.queries.end(), queries) == method.queries.end()) continue;
      for (const Json& budget : method.budgets) {
        for (const auto& target : method.targets) {
          for (const Json& task : config.tasks) {
            Cell cell = outer;
            cell.queries = queries;
            cell.method = method.method;
            cell.target = target;
            cell.budget = budget;
            cell.task = task;
            cells.push_back(std::move(cell));
          }
        }
      }
    }
  }
}

}  // namespace

Json target_json(const std::optional<TargetSize>& target) {
  return target ? target->to_json() : Json(nullptr);
}

Json Cell::to_json() const {
  Json cell = Json{{"model", model},     {"dataset", dataset}, {"task", task},
                   {"queries", queries}, {"method", method},   {"target", target_json(target)},
                   {"seed", seed}};
  if (!budget.is_null()) cell["budget"] = budget;
  return cell;
}

Cell Cell::from_json(const Json& json, const std::string& where) {
  const auto refuse = [&](const std::string& fact) {
    return Error(ErrorKind::kData, fact, where, "delete the record's line and run the sweep again");
  };
  const auto part = [&](const char* name, bool may_be_null) {
    const Json value = json.is_object() ? json.value(name, Json()) : Json();
    const bool named = value.is_object() && value.contains("name") && value.at("name").is_string();
    if (named || (may_be_null && value.is_null())) return value;
    throw refuse(fmt::format("the cell's {} must be an object with a name", name));
  };
  Cell cell;
  cell.model = part("model", false);
  cell.dataset = part("dataset", false);
  cell.task = part("task", false);
  cell.queries = part("queries", true);
  cell.method = part("method", false);
  cell.budget = part("budget", true);
  if (const Json target = json.value("target", Json()); !target.is_null()) {
    Problems problems;
    cell.target = TargetSize::from_json(target, "target", problems);
    if (!problems.list().empty()) throw refuse("the cell's " + problems.list().front().fact);
  }
  const Json seed = json.value("seed", Json());
  if (!seed.is_number_integer() || seed.get<int64_t>() < 0) {
    throw refuse("the cell's seed must be a whole number from 0");
  }
  cell.seed = seed.get<std::uint64_t>();
  return cell;
}

std::string Cell::id() const {
  return stable_hash(canonical_json(to_json()));
}

std::string Cell::label() const {
  std::string text = method.value("name", "");
  if (!queries.is_null()) text += " with " + queries.value("name", "");
  if (!budget.is_null()) text += ", " + budget.value("name", "") + " budget";
  if (const Json size = target_json(target); !size.is_null())
    text += " at " + (size.is_string() ? size.get<std::string>() : size.dump());
  return fmt::format("{}, {} on {}", text, task.value("name", ""), dataset.value("name", ""));
}

std::vector<Cell> expand(const SweepConfig& config) {
  std::vector<Cell> cells;
  for (const SweepModel& model : config.models) {
    for (const std::uint64_t seed : config.seeds) {
      for (const Json& dataset : config.datasets) {
        Cell outer;
        outer.model = model.cell;
        outer.seed = seed;
        outer.dataset = dataset;
        expand_methods(config, outer, cells);
      }
    }
  }
  return cells;
}

}  // namespace kvc
