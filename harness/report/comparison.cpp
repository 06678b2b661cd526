#include "harness/report/comparison.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "harness/report/tabulate.h"

namespace kvc {
namespace {

using Curve = std::vector<ScoredQuestion>;  // values[0] is what is compared

// One column of the comparison: a target, or the area.
struct Column {
  std::vector<Curve> rows;  // empty where a row has nothing
  std::optional<size_t> target;
};

// Where a method that takes no target stands: at the target nearest to what it kept, in the logarithm.
std::optional<size_t> nearest_target(const Row& row, const std::vector<double>& fractions) {
  const double kept = row.untargeted ? row.untargeted->sizes.kept_fraction.value_or(0) : 0;
  std::optional<size_t> best;
  if (kept <= 0) return best;
  const auto distance = [&](size_t i) { return std::abs(std::log(fractions[i] / kept)); };
  for (size_t i = 0; i < fractions.size(); ++i) {
    if (fractions[i] > 0 && (!best || distance(i) < distance(*best))) best = i;
  }
  return best;
}

Column column_at(const Table& table, size_t target, const std::vector<double>& fractions) {
  Column column{{}, target};
  for (const Row& row : table.rows) {
    Curve curve;
    if (row.role == Role::kMethod && row.cells[target]) {
      curve = row.cells[target]->questions;
    } else if (row.role == Role::kMethod && row.untargeted && nearest_target(row, fractions) == target) {
      curve = row.untargeted->questions;
    }
    column.rows.push_back(std::move(curve));
  }
  return column;
}

const ScoredQuestion* find(const Curve& curve, const ScoredQuestion& wanted) {
  const auto found = std::lower_bound(curve.begin(), curve.end(), wanted,
                                      [](const auto& a, const auto& b) { return a.key() < b.key(); });
  return found != curve.end() && found->key() == wanted.key() ? &*found : nullptr;
}

Curve area_of(const Row& row, const std::vector<double>& weights) {
  Curve areas;
  if (row.role != Role::kMethod || !row.cells.front()) return areas;
  for (const ScoredQuestion& question : row.cells.front()->questions) {
    double area = 0;
    bool whole = true;
    for (size_t i = 0; i < weights.size() && whole; ++i) {
      const ScoredQuestion* there = row.cells[i] ? find(row.cells[i]->questions, question) : nullptr;
      whole = there != nullptr;
      if (whole) area += weights[i] * there->values[0];
    }
    if (!whole) continue;
    areas.push_back(question);
    areas.back().values = {area};
  }
  return areas;
}

Column area_column(const Table& table) {
  Column column;
  const std::vector<double> weights = area_weights(target_fractions(table));
  for (const Row& row : table.rows) column.rows.push_back(weights.empty() ? Curve{} : area_of(row, weights));
  return column;
}

std::vector<Observation> observations_of(const Curve& curve) {
  std::vector<Observation> list;
  for (const ScoredQuestion& question : curve) list.push_back({question.document, question.values[0]});
  return list;
}

void add_pairs(const Column& column, bool share, std::vector<PairSummary>& pairs) {
  for (size_t first = 0; first < column.rows.size(); ++first) {
    for (size_t second = first + 1; second < column.rows.size(); ++second) {
      std::vector<Observation> differences;
      for (const ScoredQuestion& question : column.rows[first]) {
        const ScoredQuestion* other = find(column.rows[second], question);
        if (other != nullptr) differences.push_back({question.document, question.values[0] - other->values[0]});
      }
      if (differences.empty()) continue;
      PairSummary summary;
      summary.first = first;
      summary.second = second;
      summary.target = column.target;
      summary.pair = compare_pair(differences, share);
      pairs.push_back(std::move(summary));
    }
  }
}

// A mean over several askings of a question is no answer that McNemar's test could count.
bool is_binary(const Table& table) {
  const auto binary = [](const std::optional<CellSummary>& cell) {
    return !cell || std::all_of(cell->questions.begin(), cell->questions.end(), [](const ScoredQuestion& question) {
      return question.values[0] == 0 || question.values[0] == 1;
    });
  };
  return std::all_of(table.rows.begin(), table.rows.end(), [&](const Row& row) {
    return binary(row.untargeted) && std::all_of(row.cells.begin(), row.cells.end(), binary);
  });
}

void decide(std::vector<PairSummary>& pairs, bool share, bool higher_is_better) {
  std::vector<double> p;
  for (const PairSummary& summary : pairs) p.push_back(summary.pair.p);
  const std::vector<double> adjusted = holm(p);
  const double level = 1 - kLevel;
  for (size_t i = 0; i < pairs.size(); ++i) {
    PairSummary& summary = pairs[i];
    summary.p_holm = adjusted[i];
    summary.detectable = detectable_difference(summary.pair, level, share);
    summary.detectable_corrected =
        detectable_difference(summary.pair, level / static_cast<double>(pairs.size()), share);
    if (adjusted[i] > level || summary.pair.difference.mean == 0) continue;
    summary.better = (summary.pair.difference.mean > 0) == higher_is_better ? 1 : -1;
  }
}

void rank(const Column& column, size_t place, Comparison& comparison) {
  const auto methods =
      std::count_if(column.rows.begin(), column.rows.end(), [](const Curve& curve) { return !curve.empty(); });
  for (size_t row = 0; row < column.rows.size(); ++row) {
    if (!column.rows[row].empty()) comparison.ranks[row][place] = RankRange{1, methods};
  }
  for (const PairSummary& summary : comparison.pairs) {
    if (summary.target != column.target || summary.better == 0) continue;
    ++comparison.ranks[summary.better > 0 ? summary.second : summary.first][place]->best;
    --comparison.ranks[summary.better > 0 ? summary.first : summary.second][place]->worst;
  }
}

}  // namespace

std::vector<double> area_weights(const std::vector<double>& x) {
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return x[a] < x[b]; });
  if (x.size() < 2 || x[order.front()] <= 0) return {};
  const double span = std::log(x[order.back()] / x[order.front()]);
  if (!(span > 0)) return {};
  std::vector<double> weights(x.size(), 0.0);
  for (size_t i = 1; i < order.size(); ++i) {
    const double step = std::log(x[order[i]] / x[order[i - 1]]) / span / 2;
    weights[order[i - 1]] += step;
    weights[order[i]] += step;
  }
  return weights;
}

std::vector<double> target_fractions(const Table& table) {
  std::vector<double> fractions;
  for (size_t i = 0; i < table.targets.size(); ++i) {
    if (table.targets[i].is_number() && table.targets[i].get<double>() > 0) {
      fractions.push_back(table.targets[i].get<double>());
      continue;
    }
    double total = 0, count = 0;
    for (const Row& row : table.rows) {
      if (!row.cells[i] || row.cells[i]->sizes.kept_fraction.value_or(0) <= 0) continue;
      total += *row.cells[i]->sizes.kept_fraction;
      count += 1;
    }
    fractions.push_back(count > 0 ? total / count : 0);
  }
  return fractions;
}

Comparison compare_methods(const Table& table) {
  Comparison comparison;
  comparison.areas.resize(table.rows.size());
  comparison.ranks.assign(table.rows.size(), std::vector<std::optional<RankRange>>(table.targets.size() + 1));
  const auto& metrics = metrics_of_task(table.task.is_object() ? table.task.value("name", "") : "");
  if (metrics.empty() || table.targets.empty()) return comparison;
  const MetricInfo& metric = metrics.front();
  const bool share = metric.share && is_binary(table);
  const std::vector<double> fractions = target_fractions(table);
  std::vector<Column> columns;
  for (size_t i = 0; i < table.targets.size(); ++i) {
    columns.push_back(column_at(table, i, fractions));
    add_pairs(columns.back(), share, comparison.pairs);
  }
  decide(comparison.pairs, share, metric.higher_is_better);
  comparison.n_hypotheses = static_cast<int64_t>(comparison.pairs.size());
  columns.push_back(area_column(table));
  std::vector<PairSummary> areas;  // means of several answers: no longer 0 or 1
  add_pairs(columns.back(), false, areas);
  decide(areas, false, metric.higher_is_better);
  comparison.n_area_hypotheses = static_cast<int64_t>(areas.size());
  comparison.pairs.insert(comparison.pairs.end(), areas.begin(), areas.end());
  for (size_t row = 0; row < table.rows.size(); ++row) {
    if (!columns.back().rows[row].empty())
      comparison.areas[row] = estimate(observations_of(columns.back().rows[row]), false);
  }
  for (size_t i = 0; i < columns.size(); ++i) rank(columns[i], i, comparison);
  return comparison;
}

}  // namespace kvc
