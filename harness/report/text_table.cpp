#include "harness/report/text_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/core/json_lines.h"

namespace kvc {
namespace {

const char* const kNone = "–";

size_t width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string padded(const std::string& text, size_t to, bool left) {
  const std::string space(to > width(text) ? to - width(text) : 0, ' ');
  return left ? text + space : space + text;
}

std::vector<size_t> widths_of(const TextTable& table) {
  std::vector<size_t> widths;
  for (const std::string& text : table.header) widths.push_back(width(text));
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  return widths;
}

std::string escaped(std::string text) {
  for (size_t at = 0; (at = text.find_first_of("|\n", at)) != std::string::npos; at += 2) {
    text.replace(at, 1, text[at] == '|' ? "\\|" : "; ");
  }
  return text;
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

std::string cell_text(const std::optional<CellSummary>& cell, size_t metric) {
  if (!cell) return kNone;
  std::string text = cell->n_done == 0 ? "" : value_text(cell->metrics[metric]);
  const auto note = [&](int64_t n, const char* what) {
    if (n > 0) text += fmt::format("{}({} {})", text.empty() ? "" : " ", n, what);
  };
  note(cell->n_failed, "failed");
  note(cell->n_missing, "missing");
  return text;
}

std::string number_text(const std::optional<double>& value, const char* format) {
  return value ? fmt::format(fmt::runtime(format), *value) : kNone;
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

std::string markdown_table(const TextTable& table, size_t n_left) {
  std::string text = "|";
  for (const std::string& cell : table.header) text += " " + escaped(cell) + " |";
  text += "\n|";
  for (size_t i = 0; i < table.header.size(); ++i) text += i < n_left ? ":--|" : "--:|";
  for (const auto& row : table.rows) {
    text += "\n|";
    for (const std::string& cell : row) text += " " + escaped(cell) + " |";
  }
  return text + "\n";
}

std::string terminal_table(const TextTable& table, size_t n_left) {
  const std::vector<size_t> widths = widths_of(table);
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t i = 0; i < cells.size(); ++i) text += (i == 0 ? "" : "  ") + padded(cells[i], widths[i], i < n_left);
    text.erase(text.find_last_not_of(' ') + 1);
    return text + "\n";
  };
  std::string text = line(table.header);
  size_t total = 0;
  for (const size_t w : widths) total += w + 2;
  for (size_t i = 2; i < total; ++i) text += "─";
  text += "\n";
  for (const auto& row : table.rows) text += line(row);
  return text;
}

std::string bytes_text(double bytes) {
  const char* unit = "B";
  for (const char* larger : {"KiB", "MiB", "GiB", "TiB"}) {
    if (bytes < 1024) break;
    bytes /= 1024;
    unit = larger;
  }
  return *unit == 'B' ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, unit);
}

std::string seconds_text(std::optional<double> value) {
  if (!value) return kNone;
  return fmt::format("{:.{}f}", *value, *value < 1 ? 3 : *value < 10 ? 2 : 1);
}

std::string ratio_text(std::optional<double> ratio) {
  return ratio ? fmt::format("{:.1f}x", *ratio) : kNone;
}

TextTable metric_table(const Table& table, size_t metric) {
  TextTable text{{"method", "queries"}, {}};
  for (const Json& target : table.targets) text.header.push_back(target_text(target));
  if (table.targets.empty()) text.header.push_back("value");
  for (const Row& row : table.rows) {
    std::vector<std::string> cells = {row.method_label, row.queries_label.empty() ? kNone : row.queries_label};
    for (size_t i = 2; i < text.header.size(); ++i) {
      const bool targeted = i - 2 < row.cells.size() && row.cells[i - 2].has_value();
      cells.push_back(cell_text(targeted || !row.untargeted ? row.cells.at(i - 2) : row.untargeted, metric));
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
      cells.push_back(there ? fmt::format("{:.0f} %", 100 * *cell->metrics[metric].retained) : kNone);
    }
    if (any) text.rows.push_back(std::move(cells));
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
