// report.json and report.csv: everything that was computed, for programs.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/core/json_lines.h"
#include "harness/report/report.h"

namespace kvc {
namespace {

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json interval_json(const Interval& interval) {
  if (!interval.exists()) return nullptr;
  Json json = Json{{"kind", interval_name(interval.kind)},
                   {"level", kLevel},
                   {"low", interval.low},
                   {"high", interval.high},
                   {"half_width", interval.half_width()}};
  if (interval.degrees > 0) {
    json["standard_error"] = interval.standard_error;
    json["degrees_of_freedom"] = interval.degrees;
  }
  return json;
}

Json estimate_json(const Estimate& estimate) {
  return Json{{"mean", estimate.mean},
              {"n_questions", estimate.n_questions},
              {"n_documents", estimate.n_documents},
              {"interval", interval_json(estimate.interval)},
              {"interval_by_question", interval_json(estimate.questions)},
              {"interval_bootstrap", interval_json(estimate.bootstrap)}};
}

Json metrics_json(const CellSummary& cell) {
  Json metrics = Json::object();
  for (const MetricSummary& metric : cell.metrics) {
    if (metric.estimate.n_questions == 0) continue;
    Json json = estimate_json(metric.estimate);
    json["difference_to_full"] = metric.difference_to_full ? estimate_json(*metric.difference_to_full) : Json(nullptr);
    json["retained"] = or_null(metric.retained);
    metrics[metric.info.name] = std::move(json);
  }
  return metrics;
}

Json sizes_json(const SizeSummary& s) {
  return Json{{"kept_fraction", or_null(s.kept_fraction)}, {"compaction_ratio", or_null(s.compaction_ratio)},
              {"bytes_before", or_null(s.bytes_before)},   {"bytes_after", or_null(s.bytes_after)},
              {"bytes_ratio", or_null(s.bytes_ratio)},     {"allocated_bytes_after", or_null(s.allocated_bytes_after)},
              {"head_len_min", or_null(s.head_len_min)},   {"head_len_mean", or_null(s.head_len_mean)},
              {"head_len_max", or_null(s.head_len_max)}};
}

Json cell_json(const CellSummary& cell) {
  return Json{{"target", cell.target},
              {"cell_ids", cell.cell_ids},
              {"n_done", cell.n_done},
              {"n_failed", cell.n_failed},
              {"n_missing", cell.n_missing},
              {"first_error", cell.first_error.empty() ? Json(nullptr) : Json(cell.first_error)},
              {"metrics", metrics_json(cell)},
              {"sizes", sizes_json(cell.sizes)},
              {"seconds", Json{{"compaction_shared_s", or_null(cell.compaction_shared_s)},
                               {"compaction_s", or_null(cell.compaction_s)}}}};
}

const char* role_name(Role role) {
  return role == Role::kCeiling ? "ceiling" : role == Role::kFloor ? "floor" : "method";
}

Json table_json(const Table& table) {
  Json metrics = Json::array();
  for (const MetricInfo& info : metrics_of_task(table.task.value("name", ""))) {
    metrics.push_back(Json{{"name", info.name}, {"title", info.title}, {"higher_is_better", info.higher_is_better}});
  }
  Json rows = Json::array();
  for (const Row& row : table.rows) {
    Json cells = Json::array();
    if (row.untargeted) cells.push_back(cell_json(*row.untargeted));
    for (const auto& cell : row.cells) {
      if (cell) cells.push_back(cell_json(*cell));
    }
    rows.push_back(Json{{"label", row.label()},
                        {"role", role_name(row.role)},
                        {"method", row.method},
                        {"queries", row.queries},
                        {"cells", std::move(cells)}});
  }
  return Json{
      {"model", table.model},     {"dataset", table.dataset}, {"task", table.task}, {"documents", table.documents},
      {"targets", table.targets}, {"metrics", metrics},       {"rows", rows}};
}

Json stage_json(const StageCost& cost) {
  Json parts = Json::object();
  for (const auto& [name, seconds] : cost.parts) parts[name] = seconds;
  return Json{{"model", cost.model_label},       {"dataset", cost.dataset_label},
              {"n_documents", cost.n_documents}, {"prefill_s", cost.prefill_s},
              {"queries_s", cost.queries_s},     {"compaction_s", cost.compaction_s},
              {"reference_s", cost.reference_s}, {"ask_s", cost.ask_s},
              {"total_s", cost.total_s()},       {"parts", parts}};
}

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
  return result + "\"";
}

std::string csv_line(const std::vector<std::string>& fields) {
  std::vector<std::string> list;
  for (const std::string& field : fields) list.push_back(quoted(field));
  return fmt::format("{}\n", fmt::join(list, ","));
}

std::string text(const std::optional<double>& value) {
  return value ? fmt::format("{}", *value) : "";
}

void csv_cell(const Table& table, const Row& row, const CellSummary& cell, std::string& csv) {
  const SizeSummary& s = cell.sizes;
  const auto line = [&](const MetricSummary* metric) {
    std::vector<std::string> fields = {table.model_label,
                                       table.dataset_label,
                                       table.task_label,
                                       row.method_label,
                                       row.queries_label,
                                       target_text(cell.target),
                                       fmt::format("{}", cell.n_done),
                                       fmt::format("{}", cell.n_failed),
                                       fmt::format("{}", cell.n_missing)};
    if (metric != nullptr && metric->estimate.n_questions > 0) {
      const Estimate& e = metric->estimate;
      const bool interval = e.interval.exists();
      const auto& difference = metric->difference_to_full;
      const bool paired = difference && difference->interval.exists();
      for (const std::string& value :
           {metric->info.name, fmt::format("{}", e.n_questions), fmt::format("{}", e.mean),
            interval ? fmt::format("{}", e.interval.low) : "", interval ? fmt::format("{}", e.interval.high) : "",
            std::string(interval_name(e.interval.kind)), text(metric->retained),
            difference ? fmt::format("{}", difference->mean) : "",
            paired ? fmt::format("{}", difference->interval.low) : "",
            paired ? fmt::format("{}", difference->interval.high) : ""}) {
        fields.push_back(value);
      }
    } else {
      fields.insert(fields.end(), 10, "");
    }
    for (const auto& value : {s.kept_fraction, s.compaction_ratio, s.bytes_before, s.bytes_after, s.bytes_ratio,
                              cell.compaction_shared_s, cell.compaction_s}) {
      fields.push_back(text(value));
    }
    csv += csv_line(fields);
  };
  if (cell.n_done == 0 || cell.metrics.empty()) return line(nullptr);
  for (const MetricSummary& metric : cell.metrics) line(&metric);
}

}  // namespace

Json report_json(const Tabulated& tabulated) {
  Json tables = Json::array(), stages = Json::array(), failures = Json::array();
  for (const Table& table : tabulated.tables) tables.push_back(table_json(table));
  for (const StageCost& cost : tabulated.stages) stages.push_back(stage_json(cost));
  for (const Failure& f : tabulated.failures) {
    failures.push_back(
        Json{{"cell_id", f.cell_id}, {"label", f.label}, {"document_id", f.document_id}, {"error", f.error}});
  }
  return Json{{"schema", "kvcompact.report"},
              {"version", 1},
              {"records", Json{{"total", tabulated.n_records},
                               {"done", tabulated.n_done},
                               {"failed", tabulated.n_failed},
                               {"missing", tabulated.n_missing}}},
              {"provenance", tabulated.provenance},
              {"tables", tables},
              {"seconds_per_document", stages},
              {"failures", failures},
              {"warnings", tabulated.warnings}};
}

std::string report_csv(const Tabulated& tabulated) {
  std::string csv =
      "model,dataset,task,method,queries,target,n_done,n_failed,n_missing,metric,n_questions,mean,low,high,interval,"
      "retained,"
      "difference_to_full,difference_low,difference_high,kept_fraction,compaction_ratio,bytes_before,bytes_after,bytes_"
      "ratio,"
      "compaction_shared_s,compaction_s\n";
  for (const Table& table : tabulated.tables) {
    for (const Row& row : table.rows) {
      if (row.untargeted) csv_cell(table, row, *row.untargeted, csv);
      for (const auto& cell : row.cells) {
        if (cell) csv_cell(table, row, *cell, csv);
      }
    }
  }
  return csv;
}

}  // namespace kvc
