// From tables to what is drawn.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "harness/report/plot.h"

namespace kvc {
namespace {

// What the notes below a plot must say.
struct Seen {
  bool by_document = false;
  std::set<int64_t> by_question;  // of how many documents
  std::set<std::string> queries;
  bool partial = false;
};

void set_bar(const Estimate& estimate, PlotPoint& point, Seen& seen) {
  const Interval& interval = estimate.interval;
  if (!interval.exists()) return;
  point.low = interval.low;
  point.high = interval.high;
  if (interval.by_document()) {
    seen.by_document = true;
  } else {
    seen.by_question.insert(estimate.n_documents);
  }
}

std::optional<PlotPoint> point_of(const CellSummary& cell, Seen& seen) {
  const Estimate& estimate = cell.metrics.front().estimate;
  if (estimate.n_questions == 0 || !cell.sizes.kept_fraction || *cell.sizes.kept_fraction <= 0) return std::nullopt;
  PlotPoint point;
  point.x = *cell.sizes.kept_fraction;
  point.y = estimate.mean;
  point.partial = cell.n_failed + cell.n_missing > 0;
  seen.partial = seen.partial || point.partial;
  set_bar(estimate, point, seen);
  return point;
}

std::optional<double> mean_of(const Row& row) {
  if (!row.untargeted || row.untargeted->metrics.front().estimate.n_questions == 0) return std::nullopt;
  return row.untargeted->metrics.front().estimate.mean;
}

std::vector<double> ticks_of(const Table& table) {
  std::vector<double> ticks;
  for (const double fraction : target_fractions(table)) {
    if (fraction > 0) ticks.push_back(fraction);
  }
  return ticks;
}

size_t series_index(const std::string& label, std::vector<std::string>& series) {
  const auto found = std::find(series.begin(), series.end(), label);
  if (found != series.end()) return static_cast<size_t>(found - series.begin());
  series.push_back(label);
  return series.size() - 1;
}

PlotPanel panel_of(const Table& table, bool name_queries, std::vector<std::string>& series, Seen& seen) {
  const MetricInfo& metric = metrics_of_task(table.task.value("name", "")).front();
  PlotPanel panel;
  panel.title = table.dataset_label + ", " + table.task_label;
  panel.share = metric.share;
  panel.y_label = metric.share ? "accuracy (%)" : metric.name == "kl" ? "KL divergence (nats per token)" : metric.title;
  panel.ticks = ticks_of(table);
  for (const Row& row : table.rows) {
    if (row.role == Role::kCeiling) panel.ceiling = mean_of(row);
    if (row.role == Role::kFloor) panel.floor = mean_of(row);
    PlotLine line;
    for (const auto& cell : row.cells) {
      if (!cell) continue;
      if (const auto point = point_of(*cell, seen)) line.points.push_back(*point);
    }
    if (row.role != Role::kMethod || line.points.empty()) continue;
    std::sort(line.points.begin(), line.points.end(), [](const PlotPoint& a, const PlotPoint& b) { return a.x > b.x; });
    if (!row.queries_label.empty()) seen.queries.insert(row.queries_label);
    line.series = series_index(name_queries ? row.label() : row.method_label, series);
    panel.lines.push_back(std::move(line));
  }
  return panel;
}

std::vector<std::string> bar_notes(const Seen& seen) {
  std::vector<std::string> notes;
  if (seen.by_document) notes.push_back("Bars: 95 % intervals, clustered by document.");
  if (!seen.by_question.empty()) {
    const int64_t least = *seen.by_question.begin(), most = *seen.by_question.rbegin();
    const std::string range = least == most ? std::to_string(most) : fmt::format("{} to {}", least, most);
    notes.push_back(
        fmt::format("{}: 95 % intervals over the questions of {} document{}; they say nothing about other documents.",
                    seen.by_document ? "Some bars" : "Bars", range, most == 1 ? "" : "s"));
  }
  return notes;
}

bool several_queries(const Tabulated& tabulated) {
  std::set<std::string> labels;
  for (const Table& table : tabulated.tables) {
    for (const Row& row : table.rows) {
      if (!row.queries_label.empty()) labels.insert(row.queries_label);
    }
  }
  return labels.size() > 1;
}

}  // namespace

std::vector<std::pair<std::string, Plot>> plots_of(const Tabulated& tabulated) {
  const bool name_queries = several_queries(tabulated);
  std::vector<std::string> models;
  std::map<std::string, std::pair<Plot, Seen>> by_model;
  for (const Table& table : tabulated.tables) {
    if (metrics_of_task(table.task.value("name", "")).empty()) continue;
    if (by_model.count(table.model_label) == 0) models.push_back(table.model_label);
    auto& [plot, seen] = by_model[table.model_label];
    plot.title = table.model_label;
    PlotPanel panel = panel_of(table, name_queries, plot.series, seen);
    if (!panel.lines.empty()) plot.panels.push_back(std::move(panel));
  }
  std::vector<std::pair<std::string, Plot>> plots;
  for (const std::string& model : models) {
    auto& [plot, seen] = by_model[model];
    if (plot.panels.empty()) continue;
    plot.notes = bar_notes(seen);
    if (seen.queries.size() == 1)
      plot.notes.push_back("Reference queries, where a method takes some: " + *seen.queries.begin() + ".");
    if (seen.partial) plot.notes.push_back("Hollow markers: some documents failed or are missing.");
    plots.emplace_back(model, std::move(plot));
  }
  return plots;
}

}  // namespace kvc
