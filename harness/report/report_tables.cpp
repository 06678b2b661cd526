#include "harness/report/report_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/core/json_lines.h"

namespace kvc {
namespace {

constexpr auto kNone = kNoValue;

std::string name_of_task(const Table& table) {
  return table.task.is_object() ? table.task.value("name", "") : "";
}

std::string value_text(const MetricSummary& metric) {
  const Estimate& estimate = metric.estimate;
  if (estimate.n_questions == 0) return kNone;
  const int digits = metric.info.share ? 3 : std::abs(estimate.mean) < 0.01 ? 5 : 4;
  const Interval& interval = estimate.interval;
  if (interval.kind == IntervalKind::kWilson) {
    return fmt::format("{:.{}f} [{:.3f}, {:.3f}]", estimate.mean, digits, interval.low, interval.high);
  }
  if (!interval.exists()) return fmt::format("{:.{}f}", estimate.mean, digits);
  const char* mark = interval.kind == IntervalKind::kQuestionsT ? " q" : "";
  return fmt::format("{:.{}f} ± {:.{}f}{}", estimate.mean, digits, interval.half_width(), digits, mark);
}

std::string cell_text(const std::optional<CellSummary>& cell, size_t metric, int64_t most) {
  if (!cell) return kNone;
  std::string text = cell->n_done == 0 ? "" : value_text(cell->metrics[metric]);
  const int64_t n = cell->n_done == 0 ? 0 : cell->metrics[metric].estimate.n_questions;
  if (n > 0 && n != most) text += fmt::format(" (n={})", n);
  const auto note = [&](int64_t count, const char* what) {
    if (count > 0) text += fmt::format("{}({} {})", text.empty() ? "" : " ", count, what);
  };
  note(cell->n_failed, "failed");
  note(cell->n_missing, "missing");
  return text;
}

std::string number_text(const std::optional<double>& value, const char* format) {
  return value ? fmt::format(fmt::runtime(format), *value) : kNone;
}

bool by_question(const CellSummary& cell, size_t metric) {
  return cell.metrics[metric].estimate.n_documents < kFewDocuments;
}

std::string retained_text(const CellSummary& cell, size_t metric) {
  const Retained& retained = *cell.metrics[metric].retained;
  const bool few = by_question(cell, metric);
  const RatioInterval& interval = few ? retained.questions : retained.documents;
  std::string text = fmt::format("{:.0f} %", 100 * retained.value);
  if (!interval.computed) return text;
  if (interval.unbounded) return text + (few ? " [no bound] q" : " [no bound]");
  return text + fmt::format(" [{:.0f}, {:.0f}]{}", 100 * interval.low, 100 * interval.high, few ? " q" : "");
}

std::vector<const CellSummary*> cells_of(const Row& row) {
  std::vector<const CellSummary*> list;
  if (row.untargeted) list.push_back(&*row.untargeted);
  for (const auto& cell : row.cells) {
    if (cell) list.push_back(&*cell);
  }
  return list;
}

}  // namespace

int64_t most_questions(const Table& table) {
  int64_t most = 0;
  for (const Row& row : table.rows) {
    for (const CellSummary* cell : cells_of(row)) {
      if (!cell->metrics.empty()) most = std::max(most, cell->metrics.front().estimate.n_questions);
    }
  }
  return most;
}

TextTable metric_table(const Table& table, size_t metric) {
  TextTable text{{"method", "queries"}, {}};
  const int64_t most = most_questions(table);
  for (const Json& target : table.targets) text.header.push_back(target_text(target));
  if (table.targets.empty()) text.header.push_back("value");
  for (const Row& row : table.rows) {
    std::vector<std::string> cells = {row.method_label, row.queries_label.empty() ? kNone : row.queries_label};
    for (size_t i = 2; i < text.header.size(); ++i) {
      const bool targeted = i - 2 < row.cells.size() && row.cells[i - 2].has_value();
      cells.push_back(cell_text(targeted || !row.untargeted ? row.cells.at(i - 2) : row.untargeted, metric, most));
    }
    text.rows.push_back(std::move(cells));
  }
  return text;
}

TextTable retained_table(const Table& table, size_t metric) {
  TextTable text{{"method", "queries"}, {}};
  for (const Json& target : table.targets) text.header.push_back(target_text(target));
  for (const Row& row : table.rows) {
    std::vector<std::string> cells = {row.method_label, row.queries_label.empty() ? kNone : row.queries_label};
    bool any = false;
    for (const auto& cell : row.cells) {
      const bool there = cell && cell->metrics[metric].retained.has_value();
      any = any || there;
      cells.push_back(there ? retained_text(*cell, metric) : kNone);
    }
    if (any) text.rows.push_back(std::move(cells));
  }
  return text;
}

std::string retained_note(const Table& table, size_t metric) {
  bool few = false, unbounded = false, bare = false, any = false;
  for (const Row& row : table.rows) {
    for (const CellSummary* cell : cells_of(row)) {
      if (!cell->target.is_null() && cell->metrics[metric].retained) {
        const Retained& retained = *cell->metrics[metric].retained;
        any = true;
        few = few || by_question(*cell, metric);
        const RatioInterval& interval = by_question(*cell, metric) ? retained.questions : retained.documents;
        unbounded = unbounded || interval.unbounded;
        bare = bare || !interval.computed;
      }
    }
  }
  if (!any) return "";
  std::string note = "[low, high]: 95 % interval by Fieller's theorem, clustered by document";
  if (few) note += fmt::format("; q: over questions, where there are fewer than {} documents", kFewDocuments);
  if (unbounded) note += "; no bound: full_cache and no_context are too close to tell a ratio";
  if (bare) note += "; without brackets: no spread to estimate an interval from";
  return note + ".";
}

bool is_answer_check(const MetricInfo& metric) {
  return metric.name == "parse_rate" || metric.name == "length_limit_rate";
}

TextTable answers_table(const Table& table) {
  TextTable text{{"method", "queries"}, {}};
  const auto& metrics = metrics_of_task(name_of_task(table));
  if (std::none_of(metrics.begin(), metrics.end(), is_answer_check)) return text;
  const size_t n_columns = std::max<size_t>(1, table.targets.size());
  for (size_t i = 0; i < n_columns; ++i) {
    const std::string target = table.targets.empty() ? "" : target_text(table.targets[i]) + ": ";
    for (const MetricInfo& metric : metrics) {
      if (is_answer_check(metric)) text.header.push_back(target + (metric.name == "parse_rate" ? "unread" : "cut off"));
    }
  }
  for (const Row& row : table.rows) {
    std::vector<std::string> cells = {row.method_label, row.queries_label.empty() ? kNone : row.queries_label};
    for (size_t i = 0; i < n_columns; ++i) {
      const bool targeted = i < row.cells.size() && row.cells[i].has_value();
      const std::optional<CellSummary>& cell = targeted ? row.cells[i] : row.untargeted;
      for (size_t m = 0; m < metrics.size(); ++m) {
        if (!is_answer_check(metrics[m])) continue;
        const bool there = cell && cell->metrics[m].estimate.n_questions > 0;
        const double mean = there ? cell->metrics[m].estimate.mean : 0;
        cells.push_back(there ? fmt::format("{:.1f} %", 100 * (metrics[m].name == "parse_rate" ? 1 - mean : mean))
                              : kNone);
      }
    }
    text.rows.push_back(std::move(cells));
  }
  return text;
}

TextTable size_table(const std::vector<const Table*>& tables) {
  TextTable text{{"method", "queries", "target", "kept", "ratio", "cache", "of", "bytes ratio", "head length",
                  "shared s", "own s"},
                 {}};
  std::set<std::string> seen;  // the tasks of a data set share their caches: the first that has the cell is shown
  for (const Table* table : tables) {
    for (const Row& row : table->rows) {
      for (const CellSummary* cell : cells_of(row)) {
        if (cell->n_done == 0 || !seen.insert(canonical_json(Json{row.method, row.queries, cell->target})).second)
          continue;
        const SizeSummary& s = cell->sizes;
        text.rows.push_back(
            {row.method_label, row.queries_label.empty() ? kNone : row.queries_label,
             cell->target.is_null() ? kNone : target_text(cell->target), number_text(s.kept_fraction, "{:.4f}"),
             ratio_text(s.compaction_ratio), s.bytes_after ? bytes_text(*s.bytes_after) : kNone,
             s.bytes_before ? bytes_text(*s.bytes_before) : kNone, ratio_text(s.bytes_ratio),
             fmt::format("{}..{}", number_text(s.head_len_min, "{:.0f}"), number_text(s.head_len_max, "{:.0f}")),
             seconds_text(cell->compaction_shared_s), seconds_text(cell->compaction_s)});
      }
    }
  }
  return text;
}

TextTable stage_table(const std::vector<StageCost>& stages) {
  TextTable text{{"stage"}, {}};
  std::set<std::string> names;
  for (const StageCost& cost : stages) {
    text.header.push_back(cost.dataset_label);
    for (const auto& [name, seconds] : cost.parts) names.insert(name);
  }
  const auto line = [&](const std::string& name, const auto& value) {
    std::vector<std::string> cells = {name};
    for (const StageCost& cost : stages) cells.push_back(value(cost));
    text.rows.push_back(std::move(cells));
  };
  line("documents", [](const StageCost& c) { return std::to_string(c.n_documents); });
  line("prefill", [](const StageCost& c) { return seconds_text(c.prefill_s); });
  for (const std::string& name : names) {
    line(name, [&](const StageCost& cost) {
      for (const auto& [part, seconds] : cost.parts) {
        if (part == name) return seconds_text(seconds);
      }
      return std::string(kNone);
    });
  }
  line("whole grid", [](const StageCost& c) { return seconds_text(c.total_s()); });
  return text;
}

std::string interval_note(const Table& table, size_t metric) {
  std::set<IntervalKind> kinds;
  int64_t fewest = 0;
  for (const Row& row : table.rows) {
    for (const CellSummary* cell : cells_of(row)) {
      const Estimate& estimate = cell->metrics[metric].estimate;
      if (estimate.n_questions == 0) continue;
      kinds.insert(estimate.interval.kind);
      if (estimate.interval.kind != IntervalKind::kDocuments) continue;
      fewest = fewest == 0 ? estimate.n_documents : std::min(fewest, estimate.n_documents);
    }
  }
  std::string note;
  if (kinds.count(IntervalKind::kDocuments) > 0) {
    note +=
        fmt::format("± is half of a 95 % interval clustered by document ({} documents, t with {} degree{} of freedom).",
                    fewest, fewest - 1, fewest == 2 ? "" : "s");
    if (fewest < 5)
      note += " So few documents say little about others: the intervals are wide because they have to be.";
  }
  const char* why = table.documents.size() < 2 ? "one document allows no interval by document"
                                               : "the documents do not differ, or only one has answers";
  const auto by_question = [&](const char* form) {
    note += fmt::format("{}{} is a 95 % interval over questions ({}); it says nothing about other documents.",
                        note.empty() ? "" : " ", form, why);
  };
  if (kinds.count(IntervalKind::kWilson) > 0) by_question("[low, high]");
  if (kinds.count(IntervalKind::kQuestionsT) > 0) by_question("± q");
  return note;
}

}  // namespace kvc
