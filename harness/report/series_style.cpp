#include "harness/report/series_style.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <tuple>

#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

// Well-known methods have places of their own, so that those that often lead differ; others follow from their names.
const std::map<std::string, int> kPlaces = {{"am_highest_attention", 0},
                                            {"attention_matching", 0},
                                            {"kvzip", 1},
                                            {"snapkv", 2},
                                            {"am_omp", 3},
                                            {"expected_attention", 3},
                                            {"h2o", 4},
                                            {"am_omp_fast", 7},
                                            {"streaming_llm", 5},
                                            {"summarize", 6},
                                            {"chunked", 6},
                                            {"cartridge", 5},
                                            {"keydiff", 7},
                                            {"tova", 7},
                                            {"random_keys", 6}};

std::uint64_t hash_of(const std::string& text) {
  return std::stoull(stable_hash(text).substr(0, 15), nullptr, 16);
}

// Of a row: the mean over its cells of the primary metric, signed so that more is better.
std::optional<double> mean_of(const Row& row, const MetricInfo& metric) {
  double total = 0;
  int64_t n = 0;
  const auto add = [&](const std::optional<CellSummary>& cell) {
    if (!cell || cell->metrics.empty() || cell->metrics.front().estimate.n_questions == 0) return;
    total += cell->metrics.front().estimate.mean;
    ++n;
  };
  for (const auto& cell : row.cells) add(cell);
  add(row.untargeted);
  if (n == 0) return std::nullopt;
  return (metric.higher_is_better ? 1 : -1) * total / static_cast<double>(n);
}

}  // namespace

std::vector<std::string> methods_by_rank(const Tabulated& tabulated) {
  std::map<std::string, std::pair<double, int64_t>> ranks;  // sum and number
  for (const Table& table : tabulated.tables) {
    std::vector<std::pair<double, std::string>> order;
    for (const Row& row : table.rows) {
      if (row.role != Role::kMethod) continue;
      ranks[row.label()];  // one without an answer comes last
      if (!row.ranked()) continue;
      const auto& cells = row.untargeted ? row.untargeted : row.cells.empty() ? std::nullopt : row.cells.front();
      if (!cells || cells->metrics.empty()) continue;
      if (const auto mean = mean_of(row, cells->metrics.front().info)) order.emplace_back(-*mean, row.label());
    }
    std::sort(order.begin(), order.end());
    for (size_t i = 0; i < order.size(); ++i) {
      const auto equal =
          std::find_if(order.begin(), order.end(), [&](const auto& other) { return other.first == order[i].first; });
      ranks[order[i].second].first += static_cast<double>(equal - order.begin());
      ++ranks[order[i].second].second;
    }
  }
  std::vector<std::tuple<double, std::string>> order;
  for (const auto& [label, rank] : ranks)
    order.emplace_back(rank.second == 0 ? HUGE_VAL : rank.first / static_cast<double>(rank.second), label);
  std::sort(order.begin(), order.end());
  std::vector<std::string> labels;
  for (const auto& [rank, label] : order) labels.push_back(label);
  return labels;
}

std::map<std::string, SeriesStyle> series_styles(const Tabulated& tabulated, const std::vector<std::string>& coloured) {
  const std::vector<std::string> labels = methods_by_rank(tabulated);
  const size_t n_coloured = labels.size() <= kAllColoured ? labels.size() : kColoured;
  const auto is_coloured = [&](size_t i) {
    if (coloured.empty()) return i < n_coloured;
    return std::find(coloured.begin(), coloured.end(), labels[i]) != coloured.end();
  };
  std::set<int> taken;
  std::map<std::string, SeriesStyle> styles;
  for (size_t i = 0; i < labels.size(); ++i) {
    const std::string name = labels[i].substr(0, labels[i].find_first_of(" ,"));
    const auto place = kPlaces.find(name);
    SeriesStyle style;
    style.marker = static_cast<int>(hash_of(labels[i]) % 8);
    if (is_coloured(i) && taken.size() < kNSeriesColours) {
      style.colour = place != kPlaces.end() ? place->second : static_cast<int>(hash_of(name) % kNSeriesColours);
      while (!taken.insert(style.colour).second) style.colour = (style.colour + 1) % kNSeriesColours;
    }
    styles[labels[i]] = style;
  }
  return styles;
}

}  // namespace kvc
