#include "harness/report/tabulate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "harness/core/byte_size.h"
#include "harness/core/parallel.h"
#include "harness/core/stable_hash.h"
#include "harness/report/cell_summary.h"
#include "harness/report/grouped_records.h"
#include "harness/report/label.h"
#include "harness/report/stage_cost.h"
#include "harness/report/together.h"

namespace kvc {
namespace {

// Fractions from large to small, then numbers of entries, then bytes.
bool before(const Json& a, const Json& b) {
  const auto key = [](const Json& target) {
    const std::string text = target.is_string() ? target.get<std::string>() : "";
    const std::optional<int64_t> bytes = parse_bytes(text);
    const double size = target.is_number() ? target.get<double>()
                        : bytes            ? static_cast<double>(*bytes)
                                           : std::strtod(text.c_str(), nullptr);
    return std::tuple(target.is_number() ? 0 : bytes ? 2 : 1, -size, target.dump());
  };
  return key(a) < key(b);
}

Row finish_row(const RowRecords& data, const TableRecords& table, const std::vector<Json>& targets,
               const Labels& labels, const ComparisonSettings& settings) {
  Row row;
  row.method = data.method;
  row.queries = data.queries;
  row.method_label = labels.of("method", data.method);
  row.queries_label = labels.of("queries", data.queries);
  row.question_aware = data.question_aware;
  if (row.question_aware) row.queries_label += " [question-aware]";
  const std::string name = plugin_name(data.method);
  row.role = name == "full_cache" ? Role::kCeiling : name == "no_context" ? Role::kFloor : Role::kMethod;
  if (const auto found = data.cells.find("null"); found != data.cells.end()) {
    row.untargeted = summarize(found->second, table, settings);
  }
  for (const Json& target : targets) {
    const auto found = data.cells.find(canonical_json(target));
    if (found != data.cells.end()) {
      row.cells.emplace_back(summarize(found->second, table, settings));
    } else if (row.untargeted || !settings.asks(data.method, target)) {
      row.cells.emplace_back(std::nullopt);
    } else {  // not one record yet, though other methods have this target
      CellRecords none;
      none.target = target;
      row.cells.emplace_back(summarize(none, table, settings));
    }
  }
  return row;
}

// Holm over the methods of a target, for difference and equivalence each. A cell without a target is one of its own.
void correct_versus_full(Table& table) {
  const auto& metrics = metrics_of_task(plugin_name(table.task));
  for (size_t metric = 0; metric < metrics.size(); ++metric) {
    for (size_t target = 0; target <= table.targets.size(); ++target) {
      std::vector<VersusFull*> tested, bounded;
      for (Row& row : table.rows) {
        std::optional<CellSummary>& cell = target < table.targets.size() ? row.cells[target] : row.untargeted;
        if (row.role != Role::kMethod || !cell || !cell->metrics[metric].versus_full) continue;
        VersusFull& versus = *cell->metrics[metric].versus_full;
        if (versus.pair.p) tested.push_back(&versus);
        if (versus.p_equivalence) bounded.push_back(&versus);
      }
      std::vector<double> p, p_equivalence;
      for (const VersusFull* versus : tested) p.push_back(*versus->pair.p);
      for (const VersusFull* versus : bounded) p_equivalence.push_back(*versus->p_equivalence);
      p = holm(p);
      p_equivalence = holm(p_equivalence);
      for (size_t i = 0; i < tested.size(); ++i) tested[i]->p_holm = p[i];
      for (size_t i = 0; i < bounded.size(); ++i) bounded[i]->p_equivalence_holm = p_equivalence[i];
    }
  }
}

// A cell is named by one table, that of its data set.
void forget_cell_ids(Table& table) {
  for (Row& row : table.rows) {
    if (row.untargeted) row.untargeted->cell_ids.clear();
    for (std::optional<CellSummary>& cell : row.cells) {
      if (cell) cell->cell_ids.clear();
    }
  }
}

Table finish(const TableRecords& data, const Labels& labels, const ComparisonSettings& settings) {
  Table table{data.model,
              data.dataset,
              data.task,
              labels.of("model", data.model),
              labels.of("dataset", data.dataset),
              labels.of("task", data.task),
              {},
              {},
              {},
              {},
              {}};
  table.parts = part_names(data.parts, data.dataset);
  if (!table.parts.empty()) table.dataset_label += fmt::format(", {} data sets", table.parts.size());
  for (const auto& [document, seed] : data.documents) {
    const std::string name = data.of_seed.contains(document) ? document_under(document, seed) : document;
    if (table.documents.empty() || table.documents.back() != name) table.documents.push_back(name);
  }
  for (const auto& [key, target] : data.targets) table.targets.push_back(target);
  std::sort(table.targets.begin(), table.targets.end(), before);
  std::vector<const RowRecords*> rows;
  for (const auto& [key, row] : data.rows) rows.push_back(&row);
  table.rows.resize(rows.size());
  parallel_for(rows.size(),
               [&](size_t i) { table.rows[i] = finish_row(*rows[i], data, table.targets, labels, settings); });
  std::stable_sort(table.rows.begin(), table.rows.end(), [](const Row& a, const Row& b) {
    return std::tuple(a.role, a.question_aware, a.method_label, a.queries_label) <
           std::tuple(b.role, b.question_aware, b.method_label, b.queries_label);
  });
  correct_versus_full(table);
  table.comparison = compare_methods(table, settings);
  if (!table.parts.empty()) forget_cell_ids(table);
  return table;
}

std::vector<Json> distinct_provenance(const std::vector<Record>& records) {
  std::map<std::string, Json> seen;
  const Json* last = nullptr;  // of the record before: mostly the same
  for (const Record& record : records) {
    if (!record.provenance.is_object()) continue;
    if (last != nullptr && *last == record.provenance) continue;
    last = &record.provenance;
    Json provenance = record.provenance;
    provenance.erase("started_at");
    seen.emplace(canonical_json(provenance), provenance);
  }
  std::vector<Json> list;
  for (const auto& [text, provenance] : seen) list.push_back(provenance);
  return list;
}

void count(const TableRecords& table, const Labels& labels, const ComparisonSettings& settings, Tabulated& result) {
  for (const auto& [key, row] : table.rows) {
    for (const auto& [target, cell] : row.cells) {
      int64_t missing = static_cast<int64_t>(table.documents.size());
      for (const JudgedRecord& judged : cell.records) {
        --missing;
        ++(judged.failed ? result.n_failed : result.n_done);
        if (!judged.failed) continue;
        std::string label = fmt::format("{}, {} on {}", labels.of("method", row.method), plugin_name(table.task),
                                        plugin_name(table.dataset));
        if (!cell.target.is_null()) label += " at " + target_text(cell.target);
        result.failures.push_back({judged.record->cell_id, label, judged.record->document_id, judged.error});
      }
      const bool stopped = std::any_of(cell.cell_ids.begin(), cell.cell_ids.end(),
                                       [&](const std::string& id) { return settings.stopped.contains(id); });
      result.n_missing += stopped ? 0 : missing;
      result.n_stopped += stopped ? 1 : 0;
    }
    if (row.cells.count("null") > 0) continue;
    for (const auto& [target, value] : table.targets) {
      if (row.cells.count(target) > 0 || !settings.asks(row.method, value)) continue;
      result.n_missing += static_cast<int64_t>(table.documents.size());
    }
  }
}

// All cells of a task share a document's reference answers; what one run made, a later one finds.
void count_references(const TableRecords& table, Tabulated& result) {
  std::map<std::pair<std::string, std::string>, std::pair<int64_t, int64_t>> made;  // all and kept, by document, seed
  for (const auto& [key, row] : table.rows) {
    for (const auto& [target, cell] : row.cells) {
      for (const JudgedRecord& judged : cell.records) {
        const auto found = judged.record->task_notes.find("references");
        if (found == judged.record->task_notes.end()) continue;
        const Json& notes = *found;
        const auto kept = number_in(notes, "kept"), fresh = number_in(notes, "made");
        if (!kept || !fresh) continue;
        const std::pair counts{static_cast<int64_t>(*kept + *fresh), static_cast<int64_t>(*kept)};
        const auto [place, is_new] = made.try_emplace({judged.record->document_id, seed_text(*judged.record)}, counts);
        if (!is_new) place->second.second = std::min(place->second.second, counts.second);
      }
    }
  }
  for (const auto& [document, counts] : made) {
    result.n_references += counts.first;
    result.n_references_kept += counts.second;
  }
}

// Questions of the documents which the task did not ask, e.g. those whose options name other options.
void warn_of_questions_left_out(const TableRecords& table, Tabulated& result) {
  std::map<std::pair<std::string, std::string>, Json> counts;  // by document, seed
  for (const auto& [key, row] : table.rows) {
    for (const auto& [target, cell] : row.cells) {
      for (const JudgedRecord& judged : cell.records) {
        const auto found = judged.record->task_notes.find("questions");
        if (found != judged.record->task_notes.end() && found->is_object())
          counts[{judged.record->document_id, seed_text(*judged.record)}] = *found;
      }
    }
  }
  int64_t asked = 0, all = 0;
  for (const auto& [document, found] : counts) {
    asked += static_cast<int64_t>(number_in(found, "asked").value_or(0));
    all += static_cast<int64_t>(number_in(found, "in_document").value_or(0));
  }
  if (all == asked) return;
  result.warnings.push_back(
      fmt::format("{} on {}: {} of {} questions in {} were left out: the task cannot ask them", plugin_name(table.task),
                  plugin_name(table.dataset), all - asked, all,
                  counts.size() == 1 ? "one document" : fmt::format("{} documents", counts.size())));
}

// Fits of more unknowns than their queries determine answer these queries and few others.
void warn_of_few_queries(const TableRecords& table, const Table& shown, const Labels& labels, Tabulated& result) {
  for (const auto& [key, row] : table.rows) {
    double most = 0;
    std::string worst;  // the target at which it is the most heads
    for (const auto& [target, cell] : row.cells) {
      for (const JudgedRecord& judged : cell.records) {
        const double heads = number_in(judged.record->notes, "heads_with_few_queries").value_or(0);
        if (judged.failed || heads <= most) continue;
        most = heads;
        worst = target_text(cell.target);
      }
    }
    if (most == 0) continue;
    std::string text = fmt::format(
        "{}, {}{} at {}: {:.0f} heads of a document are fitted with fewer than two reference queries for every entry "
        "that they keep. Such a fit holds for these queries and hardly for others: give the queries a larger "
        "max_queries, or compact by pieces (chunked).",
        shown.dataset_label, labels.of("method", row.method),
        row.queries.is_null() ? "" : ", " + labels.of("queries", row.queries), worst, most);
    std::vector<std::string>& list = result.warnings;  // the tables of a data set's tasks would each say it
    if (std::find(list.begin(), list.end(), text) == list.end()) list.push_back(std::move(text));
  }
}

bool is_written_by_model(const Json& answer) {
  if (!answer.is_object()) return false;
  const auto extra = answer.find("extra");
  if (extra == answer.end() || !extra->is_object()) return false;
  const auto writer = extra->find("written_by");
  return writer != extra->end() && *writer == "model";
}

// Questions that the model wrote itself have no right answer that somebody vouches for.
void tell_written_questions(const TableRecords& table, const Table& shown, Tabulated& result) {
  using Questions = std::set<std::pair<std::string, std::string>>;
  const auto questions = [&](bool written_only) {
    Questions list;
    for (const auto& [key, row] : table.rows) {
      for (const auto& [target, cell] : row.cells) {
        for (const JudgedRecord& judged : cell.records) {
          for (const Json& answer : judged.record->answers) {
            if (!answer.is_object() || (written_only && !is_written_by_model(answer))) continue;
            list.insert({judged.record->document_id,
                         answer.value("question_id", Json()).dump(-1, ' ', false, Json::error_handler_t::replace)});
          }
        }
      }
    }
    return list;
  };
  const Questions written = questions(true);
  if (written.empty()) return;
  result.warnings.push_back(
      fmt::format("{}, {}: {} of {} questions were written by the model itself. They show how far a compact cache "
                  "moves it from its "
                  "own answers with the full cache; whether these are right is not judged.",
                  shown.dataset_label, shown.task_label, written.size(), questions(false).size()));
}

}  // namespace

std::vector<const CellSummary*> Row::measured() const {
  std::vector<const CellSummary*> list;
  if (untargeted) list.push_back(&*untargeted);
  for (const auto& cell : cells) {
    if (cell) list.push_back(&*cell);
  }
  return list;
}

std::string target_text(const Json& target) {
  if (target.is_null()) return "";
  return target.is_string() ? target.get<std::string>() : target.dump();
}

Tabulated tabulate(std::vector<Record> records, const Json& defaults, const ComparisonSettings& settings) {
  // How heads share a target is part of what a row stands for; the rule counts as one more option of its method.
  for (Record& record : records) {
    if (record.cell.contains("budget") && record.cell.contains("method") && record.cell.at("method").is_object()) {
      record.cell["method"]["budget"] = record.cell.at("budget");
    }
  }
  std::stable_sort(records.begin(), records.end(), [](const Record& a, const Record& b) {
    return std::tie(a.cell_id, a.document_id) < std::tie(b.cell_id, b.document_id);
  });
  Tabulated result;
  const Labels labels(records, defaults);
  const std::vector<TableRecords> tables = group_records(records);
  std::vector<TableRecords> all_parts = tables_together(tables);
  for (const TableRecords& table : tables) {
    const auto has_it = [&](const TableRecords& whole) {
      return whole.model == table.model &&
             std::find(whole.parts.begin(), whole.parts.end(), table.dataset) != whole.parts.end();
    };
    for (const TableRecords& whole : all_parts) {
      if (has_it(whole)) result.tables.push_back(finish(whole, labels, settings));
    }
    std::erase_if(all_parts, has_it);
    if (metrics_of_task(plugin_name(table.task)).empty()) {
      result.warnings.push_back(
          fmt::format("task '{}' has no metric in this program: sizes and seconds only", plugin_name(table.task)));
    }
    result.tables.push_back(finish(table, labels, settings));
    const std::vector<std::string>& warnings = result.tables.back().comparison.warnings;
    result.warnings.insert(result.warnings.end(), warnings.begin(), warnings.end());
    count(table, labels, settings, result);
    count_references(table, result);
    warn_of_questions_left_out(table, result);
    warn_of_few_queries(table, result.tables.back(), labels, result);
    tell_written_questions(table, result.tables.back(), result);
  }
  result.stages = stage_costs(records, labels);
  result.provenance = distinct_provenance(records);
  result.n_records = static_cast<int64_t>(records.size());
  return result;
}

}  // namespace kvc
