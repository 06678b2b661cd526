#include "harness/report/terminal_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/core/count.h"
#include "harness/report/conclusions.h"
#include "harness/report/report.h"
#include "harness/report/report_files.h"
#include "harness/report/report_tables.h"
#include "harness/report/series_style.h"
#include "harness/report/short_names.h"
#include "harness/report/together.h"

namespace kvc {
namespace {

constexpr size_t kShownMethods = 8;  // of a table; one or two more are shown rather than counted
constexpr size_t kShownFailures = 3;
constexpr size_t kNameWidth = 26;

int digits_of(const MetricSummary& metric) {
  if (metric.info.share) return 2;
  const Interval& interval = shown_interval(metric.estimate);
  const double size =
      interval.exists() && interval.half_width() > 0 ? interval.half_width() : std::abs(metric.estimate.mean);
  if (size <= 0) return 2;
  return std::clamp(1 - static_cast<int>(std::floor(std::log10(size))), 0, 3);
}

const std::optional<CellSummary>& cell_at(const Row& row, size_t target) {
  return target < row.cells.size() && row.cells[target] ? row.cells[target] : row.untargeted;
}

// Rows to print: the ceiling, the methods by rank, the floor.
std::vector<const Row*> shown_rows(const Table& table, const std::vector<std::string>& ranked, size_t& left_out) {
  std::vector<const Row*> rows, methods;
  for (const std::string& label : ranked) {
    for (const Row& row : table.rows) {
      if (row.role == Role::kMethod && row.label() == label) methods.push_back(&row);
    }
  }
  left_out = methods.size() > kShownMethods + 2 ? methods.size() - kShownMethods : 0;
  methods.resize(methods.size() - left_out);
  for (const Row& row : table.rows) {
    if (row.role == Role::kCeiling) rows.push_back(&row);
  }
  rows.insert(rows.end(), methods.begin(), methods.end());
  for (const Row& row : table.rows) {
    if (row.role == Role::kFloor) rows.push_back(&row);
  }
  return rows;
}

// Half of the widest interval of a row: what its numbers are good for.
std::string widest_text(const Row& row, size_t n_columns) {
  const MetricSummary* widest = nullptr;
  for (size_t t = 0; t < n_columns; ++t) {
    const auto& cell = cell_at(row, t);
    if (!cell || cell->metrics.empty() || !shown_interval(cell->metrics.front().estimate).exists()) continue;
    const MetricSummary& metric = cell->metrics.front();
    if (widest == nullptr ||
        shown_interval(metric.estimate).half_width() > shown_interval(widest->estimate).half_width())
      widest = &metric;
  }
  if (widest == nullptr) return kNoValue;
  return fmt::format("{:.{}f}", shown_interval(widest->estimate).half_width(), digits_of(*widest));
}

TextTable short_table(const Table& table, const std::vector<const Row*>& rows, const ShortNames& names, bool intervals,
                      std::vector<std::string>& gaps, std::vector<std::string>& stopped) {
  TextTable text{{"method"}, {}};
  for (const Json& target : table.targets) text.header.push_back(target_text(target));
  if (table.targets.empty()) text.header.push_back("value");
  const size_t n_columns = text.header.size() - 1;
  if (!intervals) text.header.push_back("±");
  for (const Row* row : rows) {
    std::vector<std::string> cells = {names.of(row->label())};
    for (size_t t = 0; t < n_columns; ++t) {
      const auto& cell = cell_at(*row, t);
      const bool there = cell && !cell->metrics.empty() && cell->metrics.front().estimate.n_questions > 0;
      cells.push_back(!there      ? kNoValue
                      : intervals ? estimate_text(cell->metrics.front())
                                  : mean_text(cell->metrics.front()));
      if (cell && !cell->stopped.is_null() && !(row->untargeted && t > 0)) {
        stopped.push_back(fmt::format("{}{} ({})", names.of(row->label()),
                                      cell->target.is_null() ? "" : " at " + target_text(cell->target),
                                      stopped_text(cell->stopped)));
      }
      if (!cell || cell->n_failed + cell->n_missing == 0 || (row->untargeted && t > 0)) continue;
      std::string gap = names.of(row->label());
      if (!cell->target.is_null()) gap += " at " + target_text(cell->target);
      if (cell->n_failed > 0) gap += fmt::format(" ({} failed)", cell->n_failed);
      if (cell->n_missing > 0) gap += fmt::format(" ({} missing)", cell->n_missing);
      gaps.push_back(gap);
    }
    if (!intervals) cells.push_back(widest_text(*row, n_columns));
    text.rows.push_back(std::move(cells));
  }
  return text;
}

bool fits(const TextTable& table, size_t width) {
  std::vector<size_t> widths(table.header.size(), 0);
  const auto take = [&](const std::vector<std::string>& cells) {
    for (size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], text_width(cells[i]));
  };
  take(table.header);
  for (const auto& row : table.rows) take(row);
  size_t total = 2 * (widths.size() - 1);
  for (const size_t w : widths) total += w;
  return total <= width;
}

std::string table_part(const Table& table, const std::vector<std::string>& ranked, bool with_model, size_t width) {
  const auto& metrics = metrics_of_task(table.task.is_object() ? table.task.value("name", "") : "");
  if (metrics.empty()) return "";
  size_t left_out = 0;
  const std::vector<const Row*> rows = shown_rows(table, ranked, left_out);
  std::vector<std::string> labels, gaps, stopped, unused;
  for (const Row* row : rows) labels.push_back(row->label());
  const ShortNames names = short_names(labels, kNameWidth);
  TextTable text = short_table(table, rows, names, true, unused, unused);
  const bool whole = fits(text, width);
  text = short_table(table, rows, names, whole, gaps, stopped);
  const MetricInfo& metric = metrics.front();
  std::string part = wrapped_text(
      fmt::format("{}{}, {}: {}{}. {}, {}{}.", with_model ? table.model_label + ": " : "", table.dataset_label,
                  table.task_label, metric.title, metric.higher_is_better ? "" : ", lower is better",
                  kvc::count(std::ssize(table.documents), "document"), kvc::count(most_questions(table), "question"),
                  whole ? "; 95 % intervals" : "; ±: half of the row's widest 95 % interval"),
      width);
  part += "\n" + terminal_table(text, 1, width);
  std::string note;
  for (const std::string& one : names.notes) note += (note.empty() ? "" : "  ") + one;
  if (left_out > 0) note += fmt::format("{}{} more methods in report.md.", note.empty() ? "" : "  ", left_out);
  if (!note.empty()) part += wrapped_text(note, width) + "\n";
  if (!gaps.empty()) {
    std::string list;
    for (size_t i = 0; i < std::min<size_t>(gaps.size(), 4); ++i) list += (i == 0 ? "" : ", ") + gaps[i];
    if (gaps.size() > 4) list += fmt::format(" and {} more cells", gaps.size() - 4);
    part += wrapped_text("Incomplete: " + list + ".", width) + "\n";
  }
  if (!stopped.empty()) {
    std::string list;
    for (size_t i = 0; i < std::min<size_t>(stopped.size(), 6); ++i) list += (i == 0 ? "" : ", ") + stopped[i];
    if (stopped.size() > 6) list += fmt::format(" and {} more cells", stopped.size() - 6);
    part += wrapped_text("Stopped early; intervals in report.md only: " + list + ".", width) + "\n";
  }
  return part + "\n";
}

std::string failures_part(const Tabulated& tabulated, size_t width) {
  std::string text;
  for (size_t i = 0; i < std::min(tabulated.failures.size(), kShownFailures); ++i) {
    const Failure& failure = tabulated.failures[i];
    text += wrapped_text(fmt::format("Failed: {}, document {}: {}", failure.label, failure.document_id,
                                     failure.error.substr(0, failure.error.find('\n'))),
                         width) +
            "\n";
  }
  if (tabulated.failures.size() > kShownFailures)
    text += fmt::format("{} more failed; report.json has all.\n", tabulated.failures.size() - kShownFailures);
  for (const std::string& warning : tabulated.warnings) text += wrapped_text("Warning: " + warning, width) + "\n";
  return text.empty() ? "" : text + "\n";
}

}  // namespace

const Interval& shown_interval(const Estimate& estimate) {
  const bool few = estimate.n_documents < kFewDocuments && estimate.questions.exists();
  return few ? estimate.questions : estimate.interval;
}

std::string mean_text(const MetricSummary& metric) {
  return fmt::format("{:.{}f}", metric.estimate.mean, digits_of(metric));
}

std::string estimate_text(const MetricSummary& metric) {
  const Interval& interval = shown_interval(metric.estimate);
  if (!interval.exists()) return mean_text(metric);
  const int digits = digits_of(metric);
  return fmt::format("{:.{}f} [{:.{}f}, {:.{}f}]", metric.estimate.mean, digits, interval.low, digits, interval.high,
                     digits);
}

std::string report_terminal(const Tabulated& tabulated, size_t width) {
  const std::vector<std::string> ranked = methods_by_rank(tabulated);
  bool with_model = false;
  for (const Table& table : tabulated.tables)
    with_model = with_model || table.model_label != tabulated.tables.front().model_label;
  std::string text;
  for (const Table& table : tabulated.tables) {
    if (whole_of(tabulated, table) != nullptr) continue;
    text += table_part(table, ranked, with_model, width);
    if (!table.parts.empty())
      text += wrapped_text(parts_note(table) + " Each has tables of its own in report.md.", width) + "\n\n";
  }
  text += failures_part(tabulated, width);
  for (const std::string& line : conclusions(tabulated)) text += wrapped_text("- " + line, width) + "\n";
  return text + counts_text(tabulated) + "\n";
}

}  // namespace kvc
