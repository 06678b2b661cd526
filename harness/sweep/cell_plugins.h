// The plug-ins that cells stand for, each made once.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "harness/api/budget_rule.h"
#include "harness/api/compaction_method.h"
#include "harness/api/dataset.h"
#include "harness/api/query_source.h"
#include "harness/api/task.h"
#include "harness/core/stable_hash.h"
#include "harness/sweep/cell.h"

namespace kvc {

// A cell with the plug-ins it stands for.
struct PlannedCell {
  Cell cell;
  std::string id;
  std::string label;
  std::shared_ptr<const QuerySource> queries;  // nullptr where the method takes none
  std::shared_ptr<const CompactionMethod> method;
  std::shared_ptr<const Task> task;
  std::shared_ptr<const BudgetRule> budget;  // nullptr where the method takes no target
};

// One instance of each plug-in with its options, shared by all cells that name it.
class CellPlugins {
 public:
  // The plug-in of a cell's part, {name, options...}; nullptr for null. Throws Error(kUsage) for an unknown name or
  // option.
  template <class Interface>
  std::shared_ptr<const Interface> get(const Json& part) {
    if (part.is_null()) return nullptr;
    auto& made = std::get<Instances<Interface>>(made_)[canonical_json(part)];
    if (made == nullptr) made = create_nested<Interface>(part);
    return made;
  }

  // Keeps a plug-in that was made when its entry of a sweep file was checked.
  template <class Interface>
  void add(const Json& part, std::shared_ptr<const Interface> plugin) {
    std::get<Instances<Interface>>(made_).emplace(canonical_json(part), std::move(plugin));
  }

  PlannedCell planned(const Cell& cell) {
    return {cell,
            cell.id(),
            cell.label(),
            get<QuerySource>(cell.queries),
            get<CompactionMethod>(cell.method),
            get<Task>(cell.task),
            cell.target ? get<BudgetRule>(cell.budget.is_null() ? Json{{"name", "uniform"}} : cell.budget) : nullptr};
  }

 private:
  template <class Interface>
  using Instances = std::map<std::string, std::shared_ptr<const Interface>>;

  std::tuple<Instances<Dataset>, Instances<Task>, Instances<QuerySource>, Instances<CompactionMethod>,
             Instances<BudgetRule>>
      made_;
};

}  // namespace kvc
