// From tables to what is drawn.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "harness/report/label.h"
#include "harness/report/plot.h"
#include "harness/report/short_names.h"
#include "harness/report/together.h"

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

std::optional<double> x_of(const CellSummary& cell, PlotAxis x) {
  switch (x) {
    case PlotAxis::kKept:
      return cell.sizes.kept_fraction;
    case PlotAxis::kRatio:
      return cell.sizes.compaction_ratio;
    case PlotAxis::kBytes:
      return cell.sizes.bytes_after;
    default:
      if (!cell.compaction_s) return std::nullopt;
      return *cell.compaction_s + cell.compaction_shared_s.value_or(0);
  }
}

std::optional<PlotPoint> point_of(const CellSummary& cell, size_t metric, PlotAxis x, Seen& seen) {
  if (metric >= cell.metrics.size()) return std::nullopt;
  const Estimate& estimate = cell.metrics[metric].estimate;
  const auto place = x_of(cell, x);
  if (estimate.n_questions == 0 || !place || !(*place > 0)) return std::nullopt;
  PlotPoint point;
  point.x = *place;
  point.y = estimate.mean;
  point.partial = cell.n_failed + cell.n_missing > 0;
  seen.partial = seen.partial || point.partial;
  set_bar(estimate, point, seen);
  return point;
}

std::optional<double> mean_of(const Row& row, size_t metric) {
  if (!row.untargeted || metric >= row.untargeted->metrics.size()) return std::nullopt;
  const Estimate& estimate = row.untargeted->metrics[metric].estimate;
  return estimate.n_questions == 0 ? std::nullopt : std::optional(estimate.mean);
}

std::vector<double> ticks_of(const Table& table, PlotAxis x) {
  std::vector<double> ticks;
  if (x != PlotAxis::kKept && x != PlotAxis::kRatio) return ticks;
  for (const double fraction : target_fractions(table)) {
    if (fraction > 0) ticks.push_back(x == PlotAxis::kKept ? fraction : 1 / fraction);
  }
  return ticks;
}

bool spans_decades(const PlotPanel& panel) {
  double low = HUGE_VAL, high = 0;
  for (const PlotLine& line : panel.lines) {
    for (const PlotPoint& point : line.points) {
      if (point.y < 0) return false;
      if (point.y > 0) low = std::min(low, point.y);
      high = std::max(high, point.y);
    }
  }
  return high > kLogSpan * low;
}

std::string y_label(const MetricInfo& metric) {
  if (metric.share) return metric.name + " (%)";
  return metric.name == "kl" ? "KL divergence (nats per token)" : metric.title.size() > 40 ? metric.name : metric.title;
}

bool is_named(const Row& row, const std::vector<std::string>& methods) {
  const std::string name = row.method.is_object() ? row.method.value("name", "") : "";
  return std::any_of(methods.begin(), methods.end(), [&](const std::string& wanted) {
    return wanted == row.label() || wanted == row.method_label || wanted == name;
  });
}

// The labels of the lines in all panels, with what is drawn of each.
class SeriesList {
 public:
  SeriesList(const Tabulated& tabulated, const PlotChoice& choice, bool name_queries) : name_queries_(name_queries) {
    std::vector<std::string> coloured;
    if (!choice.methods.empty()) {
      for (const Table& table : tabulated.tables) {
        for (const Row& row : table.rows) {
          if (is_named(row, choice.methods)) coloured.push_back(row.label());
        }
      }
    }
    styles_ = series_styles(tabulated, coloured);
  }

  size_t index(const Row& row) {
    const std::string label = name_queries_ ? row.label() : row.method_label;
    const auto found = std::find(labels_.begin(), labels_.end(), label);
    if (found != labels_.end()) return static_cast<size_t>(found - labels_.begin());
    labels_.push_back(label);
    list_.push_back({label, styles_.at(row.label()), row.question_aware});
    return labels_.size() - 1;
  }

  // With names that fit beside a panel, and what they stand for.
  std::vector<PlotSeries> named(std::vector<std::string>& notes) const {
    constexpr size_t kNameLetters = 20;
    const ShortNames names = short_names(labels_, kNameLetters);
    std::vector<PlotSeries> series = list_;
    for (PlotSeries& one : series) one.name = names.of(one.name);
    std::string note;
    for (const std::string& one : names.notes) note += (note.empty() ? "" : "  ") + one;
    if (!note.empty()) notes.push_back(note);
    return series;
  }

 private:
  bool name_queries_;
  std::map<std::string, SeriesStyle> styles_;
  std::vector<std::string> labels_;
  std::vector<PlotSeries> list_;
};

std::optional<size_t> metric_of(const Table& table, const std::string& wanted) {
  const auto& metrics = metrics_of_task(table.task.is_object() ? table.task.value("name", "") : "");
  for (size_t i = 0; i < metrics.size(); ++i) {
    if (wanted.empty() || metrics[i].name == wanted) return i;
  }
  return std::nullopt;
}

PlotPanel panel_of(const Table& table, size_t metric, const PlotChoice& choice, SeriesList& series, Seen& seen) {
  const MetricInfo& info = metrics_of_task(table.task.value("name", ""))[metric];
  PlotPanel panel;
  panel.title = table.dataset_label + ", " + table.task_label;
  panel.share = info.share;
  panel.y_label = y_label(info);
  panel.x = choice.x;
  panel.ticks = ticks_of(table, choice.x);
  for (const Row& row : table.rows) {
    if (row.role == Role::kCeiling) panel.ceiling = mean_of(row, metric);
    if (row.role == Role::kFloor) panel.floor = mean_of(row, metric);
    if (row.role != Role::kMethod || (!choice.methods.empty() && !is_named(row, choice.methods))) continue;
    PlotLine line;
    const auto add = [&](const std::optional<CellSummary>& cell) {
      if (!cell) return;
      if (const auto point = point_of(*cell, metric, choice.x, seen)) line.points.push_back(*point);
    };
    for (const auto& cell : row.cells) add(cell);
    if (row.untargeted) add(row.untargeted);
    if (line.points.empty()) continue;
    std::sort(line.points.begin(), line.points.end(), [](const PlotPoint& a, const PlotPoint& b) { return a.x > b.x; });
    if (!row.queries_label.empty()) seen.queries.insert(row.queries_label);
    line.series = series.index(row);
    panel.lines.push_back(std::move(line));
  }
  panel.log_y = !info.share && spans_decades(panel);
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

std::vector<std::pair<std::string, Plot>> plots_of(const Tabulated& tabulated, const PlotChoice& choice) {
  const bool name_queries = several_queries(tabulated);
  std::vector<std::string> models;
  for (const Table& table : tabulated.tables) {
    if (std::find(models.begin(), models.end(), table.model_label) == models.end()) models.push_back(table.model_label);
  }
  std::vector<std::pair<std::string, Plot>> plots;
  for (const std::string& model : models) {
    Plot plot;
    Seen seen;
    SeriesList series(tabulated, choice, name_queries);
    plot.title = model;
    for (const Table& table : tabulated.tables) {
      const auto metric = metric_of(table, choice.metric);
      if (table.model_label != model || !metric || !is_chosen(choice.dataset, table.dataset_label, table.dataset) ||
          !is_chosen(choice.task, table.task_label, table.task))
        continue;
      if (choice.dataset.empty() && whole_of(tabulated, table) != nullptr) continue;  // a panel of all parts instead
      PlotPanel panel = panel_of(table, *metric, choice, series, seen);
      if (!panel.lines.empty()) plot.panels.push_back(std::move(panel));
    }
    if (plot.panels.empty()) continue;
    plot.series = series.named(plot.notes);
    const bool grey =
        std::any_of(plot.series.begin(), plot.series.end(), [](const PlotSeries& one) { return one.style.colour < 0; });
    std::vector<std::string> notes = bar_notes(seen);
    if (grey) {
      notes.push_back("Coloured: the best by mean rank over all panels; grey lines have no bars.");
      notes.push_back("Names: in the order of the values at the size above them.");
    }
    if (seen.queries.size() == 1)
      notes.push_back("Reference queries, where a method takes some: " + *seen.queries.begin() + ".");
    if (seen.partial) notes.push_back("Hollow markers: some documents failed or are missing.");
    plot.notes.insert(plot.notes.begin(), notes.begin(), notes.end());
    plots.emplace_back(model, std::move(plot));
  }
  return plots;
}

}  // namespace kvc
