// From tables to what a heat map shows.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "harness/core/count.h"
#include "harness/report/heat_map.h"

namespace kvc {
namespace {

constexpr double kSameLength = 1.2;
constexpr int64_t kPerBin = 3;
constexpr int64_t kMostBins = 10;

bool usable(const ScoredQuestion& question) {
  return question.depth_fraction.has_value();
}

template <class Visit>
void for_cells(const Table& table, const Visit& visit) {
  for (const Row& row : table.rows) {
    if (row.untargeted) visit(*row.untargeted);
    for (const auto& cell : row.cells) {
      if (cell) visit(*cell);
    }
  }
}

// Upper ends of the groups of document lengths; questions whose length is not known count as length 0.
std::vector<double> length_groups(const Table& table) {
  std::set<double> lengths;
  for_cells(table, [&](const CellSummary& cell) {
    for (const ScoredQuestion& question : cell.questions) {
      if (usable(question)) lengths.insert(question.context_tokens.value_or(0));
    }
  });
  std::vector<double> ends;
  double least = 0;
  for (const double length : lengths) {
    if (ends.empty() || length > kSameLength * least) {
      ends.push_back(length);
      least = length;
    }
    ends.back() = length;
  }
  return ends;
}

struct Selection {
  double above = -1, up_to = 0;  // tokens
  size_t bins = 1;
  bool holds(const ScoredQuestion& question) const {
    const double length = question.context_tokens.value_or(0);
    return usable(question) && length > above && length <= up_to;
  }
};

HeatColumn column_of(const CellSummary& cell, const std::string& label, bool reference, const Selection& selection) {
  HeatColumn column{label, reference, std::vector<HeatCell>(selection.bins)};
  for (const ScoredQuestion& question : cell.questions) {
    if (!selection.holds(question)) continue;
    const auto bin = static_cast<size_t>(*question.depth_fraction * static_cast<double>(selection.bins));
    HeatCell& place = column.cells[std::min(bin, selection.bins - 1)];
    place.right += question.values.front();
    ++place.n;
  }
  return column;
}

std::string ratio_label(double kept_fraction) {
  return kept_fraction > 0 ? fmt::format("{:.3g}x", 1 / kept_fraction) : "?";
}

HeatPanel panel_of(const Table& table, const Row& row, const CellSummary* full, const std::string& title,
                   const Selection& selection) {
  HeatPanel panel{title, {}};
  const std::vector<double> fractions = target_fractions(table);
  for (size_t i = 0; i < row.cells.size(); ++i) {
    if (row.cells[i]) panel.columns.push_back(column_of(*row.cells[i], ratio_label(fractions[i]), false, selection));
  }
  if (row.untargeted) {
    const double kept = row.untargeted->sizes.kept_fraction.value_or(0);
    panel.columns.push_back(column_of(*row.untargeted, ratio_label(kept), false, selection));
  }
  if (full != nullptr && !panel.columns.empty())
    panel.columns.insert(panel.columns.begin(), column_of(*full, "full", true, selection));
  return panel;
}

HeatBand band_of(const Table& table, const Selection& selection, const std::string& title) {
  const CellSummary* full = nullptr;
  std::map<std::string, int> same_name;
  for (const Row& row : table.rows) {
    ++same_name[row.method_label];
    if (row.role == Role::kCeiling && row.untargeted) full = &*row.untargeted;
  }
  HeatBand band{title, {}};
  for (const Row& row : table.rows) {
    if (row.role != Role::kMethod) continue;
    HeatPanel panel =
        panel_of(table, row, full, same_name[row.method_label] > 1 ? row.label() : row.method_label, selection);
    if (!panel.columns.empty()) band.panels.push_back(std::move(panel));
  }
  return band;
}

// As many bins as the number of questions carries; up to twice fewer where that leaves no bin without a question, as
// depths from a grid do.
size_t bins_of(const Table& table, const Selection& selection, int64_t n_questions) {
  std::set<double> depths;
  for_cells(table, [&](const CellSummary& cell) {
    for (const ScoredQuestion& question : cell.questions) {
      if (selection.holds(question)) depths.insert(*question.depth_fraction);
    }
  });
  const auto most = static_cast<size_t>(std::clamp<int64_t>(n_questions / kPerBin, 1, kMostBins));
  for (size_t bins = most; 2 * bins >= most && bins > 1; --bins) {
    std::set<size_t> filled;
    for (const double depth : depths)
      filled.insert(std::min(static_cast<size_t>(depth * static_cast<double>(bins)), bins - 1));
    if (filled.size() == bins) return bins;
  }
  return most;
}

void add_bands(const Table& table, HeatMap& map) {
  const auto& metrics = metrics_of_task(table.task.is_object() ? table.task.value("name", "") : "");
  if (metrics.empty() || !metrics.front().share || !table.parts.empty()) return;
  double above = -1;
  for (const double up_to : length_groups(table)) {
    Selection selection{above, up_to, 1};
    above = up_to;
    std::set<std::tuple<std::string, std::string, std::string>> questions;
    std::set<std::string> documents;
    double least = up_to;
    for_cells(table, [&](const CellSummary& cell) {
      for (const ScoredQuestion& question : cell.questions) {
        if (!selection.holds(question)) continue;
        questions.insert(question.key());
        documents.insert(question.document);
        least = std::min(least, question.context_tokens.value_or(0));
      }
    });
    const auto n = static_cast<int64_t>(questions.size());
    selection.bins = bins_of(table, selection, n);
    std::string title =
        fmt::format("{}, {}: {}", table.dataset_label, table.task_label, count(std::ssize(documents), "document"));
    if (up_to > 0) {
      title += least == up_to ? fmt::format(" of {:.0f} tokens", up_to)
                              : fmt::format(" of {:.0f} to {:.0f} tokens", least, up_to);
    }
    title += ", " + count(n, "question");
    HeatBand band = band_of(table, selection, title);
    if (!band.panels.empty()) map.bands.push_back(std::move(band));
  }
}

bool any_small(const HeatMap& map) {
  for (const HeatBand& band : map.bands) {
    for (const HeatPanel& panel : band.panels) {
      for (const HeatColumn& column : panel.columns) {
        if (std::any_of(column.cells.begin(), column.cells.end(),
                        [](const HeatCell& c) { return c.n > 0 && c.n < 10; }))
          return true;
      }
    }
  }
  return false;
}

}  // namespace

std::vector<std::pair<std::string, HeatMap>> heat_maps_of(const Tabulated& tabulated) {
  std::vector<std::pair<std::string, HeatMap>> maps;
  for (const Table& table : tabulated.tables) {
    auto found = std::find_if(maps.begin(), maps.end(), [&](const auto& m) { return m.first == table.model_label; });
    if (found == maps.end()) found = maps.insert(maps.end(), {table.model_label, HeatMap{table.model_label, {}, {}}});
    add_bands(table, found->second);
  }
  std::erase_if(maps, [](const auto& m) { return m.second.bands.empty(); });
  for (auto& [model, map] : maps) {
    map.notes.push_back("Depth: where in the document the answer stands, 0 % at its start; grey: no question there.");
    if (any_small(map))
      map.notes.push_back("Cells of fewer than 10 questions are shown for completeness; they decide nothing.");
  }
  return maps;
}

}  // namespace kvc
