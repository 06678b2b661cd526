#include "harness/report/value_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "harness/report/csv_line.h"
#include "harness/report/label.h"
#include "harness/report/short_names.h"
#include "harness/report/terminal_report.h"
#include "harness/report/text_table.h"

namespace kvc {
namespace {

const std::vector<std::string> kAxes = {"folder", "model", "dataset", "task", "metric", "method", "target"};
const std::vector<std::string> kFormats = {"md", "csv", "tsv", "latex", "json"};

struct Value {
  std::map<std::string, std::string> place;  // by axis
  const MetricSummary* metric = nullptr;
  const Table* table = nullptr;
  size_t row = 0;
  std::optional<size_t> target;
  bool is_method = false, is_primary = false;
};

void check(const std::string& option, const std::string& value, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return;
  throw Error(ErrorKind::kUsage, fmt::format("unknown value '{}'", value), "--" + option, suggest_name(value, known));
}

std::vector<Value> values_of(const std::vector<LoadedReport>& folders, const ValueTableOptions& options) {
  std::vector<Value> values;
  std::set<std::string> metrics;
  for (const LoadedReport& folder : folders) {
    for (const Table& table : folder.tabulated.tables) {
      const auto& infos = metrics_of_task(table.task.is_object() ? table.task.value("name", "") : "");
      for (const MetricInfo& info : infos) metrics.insert(info.name);
      if (!is_chosen(options.dataset, table.dataset_label, table.dataset) ||
          !is_chosen(options.task, table.task_label, table.task))
        continue;
      const auto info =
          options.metric.empty()
              ? infos.begin()
              : std::find_if(infos.begin(), infos.end(), [&](const MetricInfo& m) { return m.name == options.metric; });
      if (info == infos.end()) continue;
      const auto m = static_cast<size_t>(info - infos.begin());
      for (size_t r = 0; r < table.rows.size(); ++r) {
        const Row& row = table.rows[r];
        const size_t n = std::max<size_t>(1, table.targets.size());
        for (size_t t = 0; t < n; ++t) {  // what takes no target has the same value at each
          const bool targeted = t < row.cells.size() && row.cells[t].has_value();
          const std::optional<CellSummary>& cell = targeted ? row.cells[t] : row.untargeted;
          if (!cell || m >= cell->metrics.size() || cell->metrics[m].estimate.n_questions == 0) continue;
          Value value;
          value.place = {{"folder", folder.name},
                         {"model", table.model_label},
                         {"dataset", table.dataset_label},
                         {"task", table.task_label},
                         {"metric", info->name},
                         {"method", row.label()},
                         {"target", table.targets.empty() ? "value" : target_text(table.targets[t])}};
          value.metric = &cell->metrics[m];
          value.table = &table;
          value.row = r;
          if (!table.targets.empty()) value.target = t;
          value.is_method = row.role == Role::kMethod;
          value.is_primary = m == 0;
          values.push_back(std::move(value));
        }
      }
    }
  }
  if (values.empty()) {
    std::vector<std::string> known(metrics.begin(), metrics.end());
    throw Error(ErrorKind::kUsage,
                options.metric.empty() ? "no cell has such a value"
                                       : fmt::format("no cell has the metric '{}'", options.metric),
                "--metric, --dataset, --task",
                options.metric.empty() ? "choose among the data sets and tasks of the report"
                                       : suggest_name(options.metric, known));
  }
  return values;
}

bool better(const Value& a, const Value& b) {
  return a.metric->info.higher_is_better ? a.metric->estimate.mean > b.metric->estimate.mean
                                         : a.metric->estimate.mean < b.metric->estimate.mean;
}

// Whether a pair decides against `value` and for `best`, both of one table and target.
bool decidedly_worse(const Value& value, const Value& best) {
  for (const PairSummary& pair : value.table->comparison.pairs) {
    if (pair.target != value.target || !pair.target || pair.better_bh == 0) continue;
    const bool first = pair.first == value.row && pair.second == best.row;
    const bool second = pair.second == value.row && pair.first == best.row;
    if (!first && !second) continue;
    return first ? pair.better_bh < 0 : pair.better_bh > 0;
  }
  return false;
}

// Of every table and target: the best method, and those that no decided pair puts behind it.
std::set<const Value*> marked(const std::vector<Value>& values) {
  std::map<std::pair<const Table*, std::optional<size_t>>, const Value*> best;
  for (const Value& value : values) {
    if (!value.is_method) continue;
    const Value*& known = best[{value.table, value.target}];
    if (known == nullptr || better(value, *known)) known = &value;
  }
  std::set<const Value*> result;
  for (const Value& value : values) {
    if (!value.is_method) continue;
    const Value& leader = *best.at({value.table, value.target});
    const bool equal = value.metric->estimate.mean == leader.metric->estimate.mean;
    if (&value == &leader || equal || (value.is_primary && !decidedly_worse(value, leader))) result.insert(&value);
  }
  return result;
}

using Names = std::vector<std::string>;

struct Grid {
  Names axes;               // what the parts of a row's name are
  std::vector<Names> rows;  // a part for each axis
  Names columns;
  std::map<std::pair<size_t, size_t>, const Value*> cells;

  const Value* at(size_t row, size_t column) const {
    const auto found = cells.find({row, column});
    return found == cells.end() ? nullptr : found->second;
  }
};

template <class Name>
size_t place_of(std::vector<Name>& list, const Name& name) {
  const auto found = std::find(list.begin(), list.end(), name);
  if (found != list.end()) return static_cast<size_t>(found - list.begin());
  list.push_back(name);
  return list.size() - 1;
}

// The rows' own axis comes last, behind everything else that varies.
Grid grid_of(const std::vector<Value>& values, const ValueTableOptions& options) {
  Grid grid;
  for (const std::string& axis : kAxes) {
    std::set<std::string> seen;
    for (const Value& value : values) seen.insert(value.place.at(axis));
    if (axis != options.columns && axis != options.rows && seen.size() > 1) grid.axes.push_back(axis);
  }
  grid.axes.push_back(options.rows);
  for (const Value& value : values) {
    Names name;
    for (const std::string& axis : grid.axes) name.push_back(value.place.at(axis));
    const size_t row = place_of(grid.rows, name);
    grid.cells.emplace(std::pair(row, place_of(grid.columns, value.place.at(options.columns))), &value);
  }
  return grid;
}

// Best rows first among those that differ in the last part of their name alone.
Grid sorted(const Grid& grid) {
  std::vector<Names> groups;
  std::vector<std::tuple<size_t, double, size_t>> order;
  for (size_t r = 0; r < grid.rows.size(); ++r) {
    double total = 0;
    int64_t n = 0;
    for (size_t c = 0; c < grid.columns.size(); ++c) {
      const Value* const cell = grid.at(r, c);
      if (cell == nullptr) continue;
      total += (cell->metric->info.higher_is_better ? -1 : 1) * cell->metric->estimate.mean;
      ++n;
    }
    const Names group(grid.rows[r].begin(), grid.rows[r].end() - 1);
    order.emplace_back(place_of(groups, group), n == 0 ? HUGE_VAL : total / static_cast<double>(n), r);
  }
  std::stable_sort(order.begin(), order.end());
  Grid result{grid.axes, {}, grid.columns, {}};
  for (size_t r = 0; r < order.size(); ++r) {
    const size_t from = std::get<2>(order[r]);
    result.rows.push_back(grid.rows[from]);
    for (size_t c = 0; c < grid.columns.size(); ++c) {
      if (const Value* const cell = grid.at(from, c)) result.cells[{r, c}] = cell;
    }
  }
  return result;
}

std::string joined(const Names& name) {
  return fmt::format("{}", fmt::join(name, " / "));
}

Grid transposed(const Grid& grid, const std::string& axis) {
  Grid result{{axis}, {}, {}, {}};
  for (const std::string& column : grid.columns) result.rows.push_back({column});
  for (const Names& row : grid.rows) result.columns.push_back(joined(row));
  for (const auto& [place, value] : grid.cells) result.cells[{place.second, place.first}] = value;
  return result;
}

std::string separated(const Grid& grid, bool intervals, char separator) {
  CsvLine header;
  for (const std::string& axis : grid.axes) header.add(axis);
  for (const std::string& column : grid.columns) {
    header.add(column);
    if (intervals) header.add(column + " low").add(column + " high");
  }
  std::string text = header.text(separator);
  for (size_t r = 0; r < grid.rows.size(); ++r) {
    CsvLine line;
    for (const std::string& part : grid.rows[r]) line.add(part);
    for (size_t c = 0; c < grid.columns.size(); ++c) {
      const Value* const cell = grid.at(r, c);
      if (cell == nullptr) {
        line.skip(intervals ? 3 : 1);
        continue;
      }
      line.add(cell->metric->estimate.mean);
      if (intervals) line.add_range(shown_interval(cell->metric->estimate));
    }
    text += line.text(separator);
  }
  return text;
}

std::string as_json(const Grid& grid, const std::set<const Value*>& best) {
  Json list = Json::array();
  for (const auto& [place, value] : grid.cells) {
    const Interval& interval = shown_interval(value->metric->estimate);
    Json json = Json(value->place);
    json["row"] = joined(grid.rows[place.first]);
    json["column"] = grid.columns[place.second];
    json["metric"] = value->metric->info.name;
    json["mean"] = value->metric->estimate.mean;
    json["low"] = interval.exists() ? Json(interval.low) : Json(nullptr);
    json["high"] = interval.exists() ? Json(interval.high) : Json(nullptr);
    json["n_questions"] = value->metric->estimate.n_questions;
    json["n_documents"] = value->metric->estimate.n_documents;
    json["best"] = best.count(value) > 0;
    list.push_back(std::move(json));
  }
  return list.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string latex_escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (std::string("&%$#_{}").find(c) != std::string::npos) {
      result += std::string("\\") + c;
    } else if (c == '\\') {
      result += "\\textbackslash{}";
    } else if (c == '~' || c == '^') {
      result += fmt::format("\\{}{{}}", c);
    } else {
      result += c;
    }
  }
  return result;
}

// Names that fit. What is alone of its name among the data sets, tasks or models goes by that name; the methods'
// options stand in notes.
class FittingNames {
 public:
  FittingNames(const Grid& grid, size_t width) {
    Names labels;
    for (size_t axis = 0; axis < grid.axes.size(); ++axis) {
      Names own;
      for (const Names& row : grid.rows) place_of(own, row[axis]);
      const bool by_name = grid.axes[axis] == "dataset" || grid.axes[axis] == "task" || grid.axes[axis] == "model";
      std::map<std::string, int> bases;
      for (const std::string& label : own) ++bases[base_of(label)];
      for (const std::string& label : own) {
        if (by_name && bases.at(base_of(label)) == 1) {
          plain_[label] = base_of(label);
          if (base_of(label) != label) notes_.push_back(fmt::format("{}: {}", base_of(label), label));
        } else {
          labels.push_back(label);
        }
      }
    }
    labels.insert(labels.end(), grid.columns.begin(), grid.columns.end());
    short_ = short_names(labels, width);
    notes_.insert(notes_.end(), short_.notes.begin(), short_.notes.end());
  }

  const std::string& of(const std::string& label) const {
    const auto found = plain_.find(label);
    return found == plain_.end() ? short_.of(label) : found->second;
  }
  const Names& notes() const { return notes_; }

 private:
  static std::string base_of(const std::string& label) { return label.substr(0, label.find(" (")); }

  std::map<std::string, std::string> plain_;
  ShortNames short_;
  Names notes_;
};

// Texts of the grid; the marks stand around what is best.
TextTable texts_of(const Grid& grid, const FittingNames& names, const std::set<const Value*>& best, bool intervals,
                   const char* mark_begin, const char* mark_end) {
  TextTable table{grid.axes, {}};
  for (const std::string& column : grid.columns) table.header.push_back(names.of(column));
  for (size_t r = 0; r < grid.rows.size(); ++r) {
    Names cells;
    for (const std::string& part : grid.rows[r]) cells.push_back(names.of(part));
    for (size_t c = 0; c < grid.columns.size(); ++c) {
      const Value* const cell = grid.at(r, c);
      if (cell == nullptr) {
        cells.push_back(kNoValue);
        continue;
      }
      const std::string text = intervals ? estimate_text(*cell->metric) : mean_text(*cell->metric);
      cells.push_back(best.count(cell) > 0 ? mark_begin + text + mark_end : text);
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

size_t markdown_width(const TextTable& table) {
  size_t widest = 0;
  const auto width = [](const std::vector<std::string>& cells) {
    size_t total = 1;
    for (const std::string& cell : cells) total += text_width(cell) + 3;
    return total;
  };
  widest = width(table.header);
  for (const auto& row : table.rows) widest = std::max(widest, width(row));
  return widest;
}

std::string latex(const TextTable& table, size_t n_names, const std::vector<std::string>& notes) {
  const auto line = [&](const std::vector<std::string>& cells, bool escape) {
    std::string text;
    for (size_t i = 0; i < cells.size(); ++i) {
      std::string cell = cells[i] == kNoValue ? "--" : cells[i];
      text += (i == 0 ? "" : " & ") + (escape || i < n_names ? latex_escaped(cell) : cell);
    }
    return text + " \\\\\n";
  };
  std::string text = "% needs \\usepackage{booktabs}\n\\begin{tabular}{" + std::string(n_names, 'l') +
                     std::string(table.header.size() - n_names, 'r') + "}\n\\toprule\n";
  text += line(table.header, true) + "\\midrule\n";
  for (const auto& row : table.rows) text += line(row, false);
  text += "\\bottomrule\n\\end{tabular}\n";
  for (const std::string& note : notes) text += "% " + note + "\n";
  return text;
}

}  // namespace

std::string value_table(const std::vector<LoadedReport>& folders, const ValueTableOptions& options) {
  check("rows", options.rows, kAxes);
  check("columns", options.columns, kAxes);
  check("format", options.format, kFormats);
  if (options.rows == options.columns) {
    throw Error(ErrorKind::kUsage, fmt::format("rows and columns must differ; got '{}' for both", options.rows),
                "--rows, --columns", "choose another of method, target, model, dataset, task, metric, folder");
  }
  const std::vector<Value> values = values_of(folders, options);
  Grid grid = grid_of(values, options);
  if (options.sort) grid = sorted(grid);
  if (options.transpose) grid = transposed(grid, options.columns);
  const std::set<const Value*> best = options.best ? marked(values) : std::set<const Value*>();
  if (options.format == "csv" || options.format == "tsv")
    return separated(grid, options.intervals, options.format == "csv" ? ',' : '\t');
  if (options.format == "json") return as_json(grid, best);
  const FittingNames names(grid, options.width < 120 ? 26 : 60);
  const bool tex = options.format == "latex";
  const auto texts = [&](bool intervals) {
    return texts_of(grid, names, best, intervals, tex ? "\\textbf{" : "**", tex ? "}" : "**");
  };
  TextTable table = texts(options.intervals);
  const bool left_out = options.intervals && markdown_width(table) > options.width;
  if (left_out) table = texts(false);
  std::vector<std::string> notes = names.notes();
  if (best.size() > 0)
    notes.push_back("Bold: the best method of a column, and those that this run does not decide to be worse.");
  if (left_out)
    notes.push_back(
        fmt::format("95 % intervals are left out: the table would be wider than {} columns (--width).", options.width));
  if (tex) return latex(table, grid.axes.size(), notes);
  std::string text = markdown_table(table, grid.axes.size());
  for (const std::string& note : notes) text += "\n" + note + "\n";
  return text;
}

}  // namespace kvc
