// report.json: everything that was computed, for programs.
#include "harness/report/cause_table.h"
#include "harness/report/cell_summary.h"
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
  Json json = Json{{"mean", estimate.mean},
                   {"n_questions", estimate.n_questions},
                   {"n_documents", estimate.n_documents},
                   {"mean_of_documents", estimate.mean_of_documents},
                   {"interval", interval_json(estimate.interval)},
                   {"interval_by_question", interval_json(estimate.questions)},
                   {"interval_bootstrap", interval_json(estimate.bootstrap)}};
  for (const auto& [document, mean] : estimate.document_means) json["document_means"][document] = mean;
  return json;
}

Json ratio_interval_json(const RatioInterval& interval) {
  if (!interval.computed) return nullptr;
  return Json{{"level", kLevel},
              {"low", interval.unbounded ? Json(nullptr) : Json(interval.low)},
              {"high", interval.unbounded ? Json(nullptr) : Json(interval.high)},
              {"degrees_of_freedom", interval.degrees}};
}

Json retained_json(const Retained& retained) {
  return Json{{"value", retained.value},
              {"interval", ratio_interval_json(retained.interval)},
              {"interval_by_question", ratio_interval_json(retained.questions)},
              {"interval_bootstrap", interval_json(retained.bootstrap)},
              {"bootstrap_left_out", retained.bootstrap_left_out}};
}

// What a pair's tests say; its difference stands beside it.
Json tests_json(const Pair& pair) {
  Json ratio = nullptr;
  if (pair.ratio) ratio = Json{{"value", *pair.ratio}, {"interval", interval_json(pair.ratio_interval)}};
  return Json{{"wins", pair.wins},
              {"losses", pair.losses},
              {"ties", pair.ties},
              {"ratio", ratio},
              {"p_mcnemar", or_null(pair.p_mcnemar)},
              {"p_sign_flip", or_null(pair.p_sign_flip)},
              {"p_documents", or_null(pair.p_documents)},
              {"test", test_name(pair.test)},
              {"p", or_null(pair.p)}};
}

Json versus_full_json(const VersusFull& versus) {
  Json json = tests_json(versus.pair);
  json["p_holm"] = or_null(versus.p_holm);
  json["p_equivalence"] = or_null(versus.p_equivalence);
  json["p_equivalence_holm"] = or_null(versus.p_equivalence_holm);
  return json;
}

Json metrics_json(const CellSummary& cell) {
  Json metrics = Json::object();
  for (const MetricSummary& metric : cell.metrics) {
    if (metric.estimate.n_questions == 0) continue;
    Json json = estimate_json(metric.estimate);
    json["difference_to_full"] =
        metric.versus_full ? estimate_json(metric.versus_full->pair.difference) : Json(nullptr);
    json["versus_full"] = metric.versus_full ? versus_full_json(*metric.versus_full) : Json(nullptr);
    json["retained"] = metric.retained ? retained_json(*metric.retained) : Json(nullptr);
    metrics[metric.info.name] = std::move(json);
  }
  return metrics;
}

// "sizes" or "seconds" of a cell.
Json quantities_json(const CellSummary& cell, std::string_view part) {
  Json json = Json::object();
  for (const CellQuantity& quantity : cell_quantities()) {
    if (quantity.part != nullptr && quantity.part == part) json[quantity.name] = or_null(quantity.value(cell));
  }
  return json;
}

Json cell_json(const CellSummary& cell) {
  Json json = Json{{"target", cell.target},
                   {"cell_ids", cell.cell_ids},
                   {"n_done", cell.n_done},
                   {"n_failed", cell.n_failed},
                   {"n_missing", cell.n_missing},
                   {"first_error", cell.first_error.empty() ? Json(nullptr) : Json(cell.first_error)},
                   {"metrics", metrics_json(cell)},
                   {"sizes", quantities_json(cell, "sizes")},
                   {"seconds", quantities_json(cell, "seconds")}};
  if (!cell.heads.is_null()) json["heads"] = cell.heads;
  if (!cell.stopped.is_null()) json["stopped"] = cell.stopped;
  return json;
}

const char* role_name(Role role) {
  return role == Role::kCeiling ? "ceiling" : role == Role::kFloor ? "floor" : "method";
}

Json pair_json(const Table& table, const PairSummary& summary) {
  const Pair& pair = summary.pair;
  const auto kept = [&](size_t row) -> Json {
    if (!summary.target) return nullptr;
    const auto& cell =
        table.rows[row].cells[*summary.target] ? table.rows[row].cells[*summary.target] : table.rows[row].untargeted;
    return cell ? or_null(cell->sizes.kept_fraction) : Json(nullptr);
  };
  const auto word = [](int better) { return better == 0 ? "undecided" : better > 0 ? "first" : "second"; };
  Json json = tests_json(pair);
  json.update(Json{{"first", summary.first},
                   {"second", summary.second},
                   {"target", summary.target ? table.targets[*summary.target] : Json("area")},
                   {"kept_fractions", Json::array({kept(summary.first), kept(summary.second)})},
                   {"difference", estimate_json(pair.difference)},
                   {"p_holm", or_null(summary.p_holm)},
                   {"p_bh", or_null(summary.p_bh)},
                   {"p_equivalence", or_null(summary.p_equivalence)},
                   {"detectable", or_null(summary.detectable)},
                   {"detectable_corrected", or_null(summary.detectable_corrected)},
                   {"better", word(summary.better)},
                   {"better_bh", word(summary.better_bh)}});
  return json;
}

Json comparison_json(const Table& table) {
  const auto& metrics = metrics_of_task(table.task.is_object() ? table.task.value("name", "") : "");
  if (metrics.empty() || table.targets.empty()) return nullptr;
  const Comparison& comparison = table.comparison;
  Json pairs = Json::array(), areas = Json::array(), ranks = Json::array();
  for (const PairSummary& pair : comparison.pairs) pairs.push_back(pair_json(table, pair));
  for (size_t row = 0; row < table.rows.size(); ++row) {
    areas.push_back(comparison.areas[row] ? estimate_json(*comparison.areas[row]) : Json(nullptr));
    Json places = Json::array();
    for (const auto& range : comparison.ranks[row])
      places.push_back(range ? Json::array({range->best, range->worst}) : Json(nullptr));
    ranks.push_back(std::move(places));
  }
  return Json{{"metric", metrics.front().name},
              {"level", 1 - kLevel},
              {"power", kPower},
              {"reference", or_null(comparison.reference)},
              {"reference_is_declared", comparison.reference_is_declared},
              {"selection_factor", comparison.selection_factor},
              {"equivalence_margin", comparison.margin > 0 ? Json(comparison.margin) : Json(nullptr)},
              {"n_hypotheses", comparison.n_hypotheses},
              {"n_area_hypotheses", comparison.n_area_hypotheses},
              {"areas", areas},
              {"ranks", ranks},
              {"pairs", pairs}};
}

Json table_json(const Table& table) {
  Json metrics = Json::array();
  for (const MetricInfo& info : metrics_of_task(table.task.value("name", ""))) {
    metrics.push_back(Json{{"name", info.name},
                           {"title", info.title},
                           {"share", info.share},
                           {"higher_is_better", info.higher_is_better}});
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
  Json json{
      {"labels", Json{{"model", table.model_label}, {"dataset", table.dataset_label}, {"task", table.task_label}}},
      {"model", table.model},
      {"dataset", table.dataset},
      {"task", table.task},
      {"documents", table.documents},
      {"targets", table.targets},
      {"metrics", metrics},
      {"rows", rows},
      {"comparison", comparison_json(table)}};
  if (!table.parts.empty()) json["parts"] = table.parts;
  return json;
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

// Of the answers that are still wrong, with the name of their cell.
Json explanations_json(const Tabulated& tabulated, const std::vector<Explanation>& explanations) {
  Json list = Json::array();
  const auto add = [&](const std::optional<CellSummary>& cell) {
    if (!cell || explanations.empty()) return;
    for (const Explanation* one : explanations_of(*cell, explanations)) {
      Json json = one->to_json();
      json["cell"] = cell_name(tabulated, one->cell_id);
      list.push_back(std::move(json));
    }
  };
  for (const Table& table : tabulated.tables) {
    for (const Row& row : table.rows) {
      add(row.untargeted);
      for (const auto& cell : row.cells) add(cell);
    }
  }
  return list;
}

}  // namespace

Json report_json(const Tabulated& tabulated, const std::vector<Explanation>& explanations) {
  Json tables = Json::array(), stages = Json::array(), failures = Json::array();
  for (const Table& table : tabulated.tables) tables.push_back(table_json(table));
  for (const StageCost& cost : tabulated.stages) stages.push_back(stage_json(cost));
  for (const Failure& f : tabulated.failures) {
    failures.push_back(
        Json{{"cell_id", f.cell_id}, {"label", f.label}, {"document_id", f.document_id}, {"error", f.error}});
  }
  Json report{{"schema", "kvcompact.report"},
              {"version", kReportVersion},
              {"records", Json{{"total", tabulated.n_records},
                               {"done", tabulated.n_done},
                               {"failed", tabulated.n_failed},
                               {"missing", tabulated.n_missing}}},
              {"references", Json{{"total", tabulated.n_references}, {"kept", tabulated.n_references_kept}}},
              {"provenance", tabulated.provenance},
              {"tables", tables},
              {"seconds_per_document", stages},
              {"failures", failures},
              {"warnings", tabulated.warnings}};
  if (Json explained = explanations_json(tabulated, explanations); !explained.empty())
    report["explanations"] = std::move(explained);
  return report;
}

}  // namespace kvc
