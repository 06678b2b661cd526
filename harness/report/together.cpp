#include "harness/report/together.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>
#include <map>
#include <tuple>

#include "harness/core/stable_hash.h"
#include "harness/report/label.h"

namespace kvc {
namespace {

// What may differ between the parts of one benchmark. Not any text: a subset of a data set has questions of the whole.
constexpr std::array<const char*, 3> kPartOptions = {"task", "path", "qa_path"};

Json without_part(Json dataset) {
  for (const char* option : kPartOptions) {
    if (dataset.is_object()) dataset.erase(option);
  }
  return dataset;
}

// What all parts have, the name among it.
Json shared_options(const std::vector<const TableRecords*>& parts) {
  Json shared = parts.front()->dataset;
  for (const TableRecords* part : parts) {
    for (const char* option : kPartOptions) {
      if (shared.contains(option) && (!part->dataset.contains(option) || part->dataset.at(option) != shared.at(option)))
        shared.erase(option);
    }
  }
  return shared;
}

std::string part_name(const Json& dataset, const Json& shared) {
  std::string name;
  for (const char* option : kPartOptions) {
    if (!dataset.contains(option) || shared.contains(option) || !dataset.at(option).is_string()) continue;
    const std::string value = dataset.at(option).get<std::string>();
    if (value.empty()) continue;
    name += (name.empty() ? "" : ", ") +
            (std::string(option) == "task" ? value : std::filesystem::path(value).stem().string());
  }
  return name.empty() ? plugin_name(dataset) : name;
}

void add_cell(const CellRecords& from, const std::string& part, CellRecords& to) {
  to.target = from.target;
  to.cell_ids.insert(from.cell_ids.begin(), from.cell_ids.end());
  to.records.insert(to.records.end(), from.records.begin(), from.records.end());
  for (ScoredQuestion question : from.questions) {
    question.document = part + ": " + question.document;
    to.questions.push_back(std::move(question));
  }
}

TableRecords join(const std::vector<const TableRecords*>& parts) {
  TableRecords all;
  all.model = parts.front()->model;
  all.task = parts.front()->task;
  all.dataset = shared_options(parts);
  for (const TableRecords* part : parts) all.parts.push_back(part->dataset);
  const std::vector<std::string> names = part_names(all.parts, all.dataset);
  for (size_t i = 0; i < parts.size(); ++i) {
    const TableRecords* const part = parts[i];
    const std::string& name = names[i];
    for (const auto& [document, seed] : part->documents) all.documents.insert({name + ": " + document, seed});
    for (const std::string& document : part->of_seed) all.of_seed.insert(name + ": " + document);
    all.targets.insert(part->targets.begin(), part->targets.end());
    for (const auto& [key, row] : part->rows) {
      RowRecords& own = all.rows[key];
      own.method = row.method;
      own.queries = row.queries;
      own.question_aware = row.question_aware;
      for (const auto& [target, cell] : row.cells) add_cell(cell, name, own.cells[target]);
    }
  }
  for (auto& [key, row] : all.rows) {
    for (auto& [target, cell] : row.cells) {
      std::sort(cell.questions.begin(), cell.questions.end(),
                [](const ScoredQuestion& a, const ScoredQuestion& b) { return a.key() < b.key(); });
    }
  }
  return all;
}

}  // namespace

std::vector<std::string> part_names(const std::vector<Json>& datasets, const Json& shared) {
  std::vector<std::string> names;
  for (const Json& dataset : datasets) {
    std::string name = part_name(dataset, shared);
    const auto taken = [&](const std::string& wanted) {
      return std::find(names.begin(), names.end(), wanted) != names.end();
    };
    for (int n = 2; taken(name); ++n) name = fmt::format("{} ({})", part_name(dataset, shared), n);
    names.push_back(std::move(name));
  }
  return names;
}

const Table* whole_of(const Tabulated& tabulated, const Table& part) {
  for (const Table& table : tabulated.tables) {
    if (!table.parts.empty() && part.parts.empty() && table.model == part.model && table.task == part.task &&
        without_part(table.dataset) == without_part(part.dataset))
      return &table;
  }
  return nullptr;
}

std::string parts_note(const Table& table) {
  if (table.parts.empty()) return "";
  std::map<std::string, int64_t> asked;  // questions of the cell with the most, by part
  for (const Row& row : table.rows) {
    for (const CellSummary* cell : row.measured()) {
      std::map<std::string, int64_t> own;
      for (const ScoredQuestion& question : cell->questions) {
        for (const std::string& part : table.parts) own[part] += question.document.starts_with(part + ": ") ? 1 : 0;
      }
      for (const auto& [part, n] : own) asked[part] = std::max(asked[part], n);
    }
  }
  int64_t least = std::numeric_limits<int64_t>::max(), most = 0;
  for (const std::string& part : table.parts) {
    least = std::min(least, asked[part]);
    most = std::max(most, asked[part]);
  }
  return fmt::format("Means over the questions of {}: {}", fmt::join(table.parts, ", "),
                     least == most
                         ? fmt::format("{} of each, so they are the means of the data sets' means too; a row with "
                                       "fewer (n) is only of the tasks it has.",
                                       most)
                         : fmt::format("{} to {} of each, so a data set with more of them counts more.", least, most));
}

std::vector<TableRecords> tables_together(const std::vector<TableRecords>& tables) {
  std::map<std::tuple<std::string, std::string, std::string>, std::vector<const TableRecords*>> groups;
  for (const TableRecords& table : tables) {
    const std::string task = plugin_name(table.task);
    if (metrics_of_task(task).empty() || task == "head_errors") continue;
    groups[{canonical_json(table.model), canonical_json(without_part(table.dataset)), canonical_json(table.task)}]
        .push_back(&table);
  }
  std::vector<TableRecords> list;
  for (const auto& [key, parts] : groups) {
    if (parts.size() > 1) list.push_back(join(parts));
  }
  return list;
}

}  // namespace kvc
