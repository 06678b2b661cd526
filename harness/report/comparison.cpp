#include "harness/report/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "harness/core/parallel.h"
#include "harness/core/stable_hash.h"
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
    if (row.ranked() && row.cells[target] && row.cells[target]->stopped.is_null()) {
      curve = row.cells[target]->questions;
    } else if (row.ranked() && row.untargeted && nearest_target(row, fractions) == target) {
      curve = row.untargeted->questions;
    }
    column.rows.push_back(std::move(curve));
  }
  return column;
}

// The questions that both curves have, side by side; both are sorted.
template <class Visit>
void for_shared(const Curve& first, const Curve& second, const Visit& visit) {
  auto other = second.begin();
  for (const ScoredQuestion& question : first) {
    while (other != second.end() && other->key() < question.key()) ++other;
    if (other == second.end()) return;
    if (other->key() == question.key()) visit(question, *other);
  }
}

Curve area_of(const Row& row, const std::vector<double>& weights) {
  Curve areas;
  if (!row.ranked() || !row.cells.front()) return areas;
  areas = row.cells.front()->questions;
  for (ScoredQuestion& question : areas) question.values = {0};
  for (size_t i = 0; i < weights.size(); ++i) {
    // A cell that was left early was left for what it lost: no test of a number of documents fixed beforehand is valid.
    if (!row.cells[i] || !row.cells[i]->stopped.is_null()) return {};
    Curve shared;
    for_shared(areas, row.cells[i]->questions, [&](const ScoredQuestion& so_far, const ScoredQuestion& there) {
      shared.push_back(so_far);
      shared.back().values[0] += weights[i] * there.values[0];
    });
    areas = std::move(shared);
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

std::optional<PairSummary> pair_of(const Column& column, size_t first, size_t second, MetricScale scale) {
  std::vector<PairedValues> values;
  for_shared(column.rows[first], column.rows[second], [&](const ScoredQuestion& a, const ScoredQuestion& b) {
    values.push_back({a.document, a.values[0], b.values[0]});
  });
  if (values.empty()) return std::nullopt;
  PairSummary summary;
  summary.first = first;
  summary.second = second;
  summary.target = column.target;
  summary.pair = compare_pair(values, scale);
  return summary;
}

void add_pairs(const Column& column, MetricScale scale, std::vector<PairSummary>& pairs) {
  std::vector<std::pair<size_t, size_t>> rows;
  for (size_t first = 0; first < column.rows.size(); ++first) {
    for (size_t second = first + 1; second < column.rows.size(); ++second) rows.emplace_back(first, second);
  }
  std::vector<std::optional<PairSummary>> made(rows.size());
  parallel_for(rows.size(), [&](size_t i) { made[i] = pair_of(column, rows[i].first, rows[i].second, scale); });
  for (std::optional<PairSummary>& summary : made) {
    if (summary) pairs.push_back(std::move(*summary));
  }
}

// Of everything that is compared, so that all pairs of a table are tested alike.
MetricScale table_scale(const std::vector<Column>& columns, const MetricInfo& metric) {
  if (metric.share) return MetricScale::kShare;
  for (const Column& column : columns) {
    for (const Curve& curve : column.rows) {
      if (std::any_of(curve.begin(), curve.end(), [](const ScoredQuestion& q) { return q.values[0] < 0; }))
        return MetricScale::kReal;
    }
  }
  return MetricScale::kPositive;
}

// Above 0 where the first has the higher value, on the scale of the test.
double direction(const Pair& pair) {
  return pair.ratio ? std::log(*pair.ratio) : pair.difference.mean;
}

int winner(const Pair& pair, const std::optional<double>& p, bool higher_is_better) {
  if (!p || *p > 1 - kLevel || direction(pair) == 0) return 0;
  return (direction(pair) > 0) == higher_is_better ? 1 : -1;
}

void decide_all_pairs(std::span<PairSummary> pairs, bool higher_is_better) {
  std::vector<double> p;
  for (const PairSummary& summary : pairs) {
    if (summary.pair.p) p.push_back(*summary.pair.p);
  }
  const std::vector<double> adjusted = benjamini_hochberg(p);
  size_t next = 0;
  for (PairSummary& summary : pairs) {
    if (summary.pair.p) summary.p_bh = adjusted[next++];
    summary.better_bh = winner(summary.pair, summary.p_bh, higher_is_better);
  }
}

using Gate = std::map<size_t, double>;  // p_holm of the area against the reference, by row

// The pairs of `target` with the reference, one family. Gives the p_holm of the other rows.
Gate decide_family(std::optional<size_t> target, const Gate& gate, bool higher_is_better, Comparison& comparison) {
  Gate decided;
  std::vector<PairSummary*> family;
  std::vector<double> p;
  for (PairSummary& summary : comparison.pairs) {
    const bool with_reference = summary.first == comparison.reference || summary.second == comparison.reference;
    if (summary.target != target || !with_reference || !summary.pair.p) continue;
    family.push_back(&summary);
    p.push_back(std::min(1.0, *summary.pair.p * comparison.selection_factor));
  }
  const std::vector<double> adjusted = holm(p);
  const double level = 1 - kLevel;
  for (size_t i = 0; i < family.size(); ++i) {
    PairSummary& summary = *family[i];
    const size_t other = summary.first == comparison.reference ? summary.second : summary.first;
    const auto area = gate.find(other);
    summary.p_holm = area == gate.end() ? adjusted[i] : std::max(adjusted[i], area->second);
    summary.better = winner(summary.pair, summary.p_holm, higher_is_better);
    summary.detectable = detectable_effect(summary.pair, level);
    summary.detectable_corrected =
        detectable_effect(summary.pair, level / static_cast<double>(family.size()) / comparison.selection_factor);
    decided[other] = *summary.p_holm;
  }
  return decided;
}

void rank(const Column& column, size_t place, Comparison& comparison) {
  const auto methods =
      std::count_if(column.rows.begin(), column.rows.end(), [](const Curve& curve) { return !curve.empty(); });
  for (size_t row = 0; row < column.rows.size(); ++row) {
    if (!column.rows[row].empty()) comparison.ranks[row][place] = RankRange{1, methods};
  }
  for (const PairSummary& summary : comparison.pairs) {
    if (summary.target != column.target || summary.better_bh == 0) continue;
    ++comparison.ranks[summary.better_bh > 0 ? summary.second : summary.first][place]->best;
    --comparison.ranks[summary.better_bh > 0 ? summary.first : summary.second][place]->worst;
  }
}

double mean_of(const Curve& curve) {
  double sum = 0;
  for (const ScoredQuestion& question : curve) sum += question.values[0];
  return sum / static_cast<double>(curve.size());
}

// The best mean of the areas; where there are none, of the first target that compares two methods.
std::optional<size_t> best_row(const std::vector<Column>& columns, bool higher_is_better) {
  const auto contestants = [](const Column& column) {
    return std::count_if(column.rows.begin(), column.rows.end(), [](const Curve& curve) { return !curve.empty(); });
  };
  const Column* column = &columns.back();
  for (size_t i = 0; i + 1 < columns.size() && contestants(*column) < 2; ++i) column = &columns[i];
  std::optional<size_t> best;
  for (size_t row = 0; row < column->rows.size(); ++row) {
    if (column->rows[row].empty()) continue;
    const double own = mean_of(column->rows[row]);
    const double least = best ? mean_of(column->rows[*best]) : own;
    if (!best || (higher_is_better ? own > least : own < least)) best = row;
  }
  return best;
}

std::string name_of(const Row& row) {
  return row.method.is_object() ? row.method.value("name", "") : "";
}

// The row that `compare_to` names; nothing, with a warning, where none or several are named.
std::optional<size_t> declared_row(const Table& table, const std::string& wanted, Comparison& comparison) {
  using Label = std::string (*)(const Row&);
  const Label labels[] = {[](const Row& row) { return row.label(); }, [](const Row& row) { return row.method_label; },
                          [](const Row& row) { return name_of(row); }};
  for (const Label label : labels) {
    std::vector<size_t> found;
    for (size_t row = 0; row < table.rows.size(); ++row) {
      if (table.rows[row].ranked() && label(table.rows[row]) == wanted) found.push_back(row);
    }
    if (found.size() == 1) return found.front();
    if (found.empty()) continue;
    comparison.warnings.push_back(
        fmt::format("{}, {}: '{}' in compare_to matches {} rows; comparing with the best one. Write the "
                    "row's label as the table shows it, e.g. compare_to: \"{}\"",
                    table.dataset_label, table.task_label, wanted, found.size(), table.rows[found.front()].label()));
    return std::nullopt;
  }
  comparison.warnings.push_back(fmt::format("{}, {}: unknown method '{}' in compare_to; comparing with the best one",
                                            table.dataset_label, table.task_label, wanted));
  return std::nullopt;
}

void choose_reference(const Table& table, const std::vector<Column>& columns, const ComparisonSettings& settings,
                      bool higher_is_better, Comparison& comparison) {
  if (!settings.compare_to.empty()) comparison.reference = declared_row(table, settings.compare_to, comparison);
  comparison.reference_is_declared = comparison.reference.has_value();
  if (comparison.reference) return;
  comparison.reference = best_row(columns, higher_is_better);
  const auto methods = std::count_if(table.rows.begin(), table.rows.end(), [](const Row& row) { return row.ranked(); });
  comparison.selection_factor = std::max(1.0, static_cast<double>(methods) / 2);
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

bool ComparisonSettings::asks(const Json& method, const Json& target) const {
  const auto found = targets.find(canonical_json(method));
  return found == targets.end() || found->second.contains(canonical_json(target));
}

double margin_of(const ComparisonSettings& settings, const MetricInfo& metric) {
  const auto found = settings.margin.find(metric.name);
  if (found != settings.margin.end()) return found->second;
  return metric.share ? kShareMargin : metric.name == "kl" ? kKlMargin : 0;
}

Comparison compare_methods(const Table& table, const ComparisonSettings& settings) {
  Comparison comparison;
  comparison.areas.resize(table.rows.size());
  comparison.ranks.assign(table.rows.size(), std::vector<std::optional<RankRange>>(table.targets.size() + 1));
  const auto& metrics = metrics_of_task(table.task.is_object() ? table.task.value("name", "") : "");
  if (metrics.empty() || table.targets.empty()) return comparison;
  const MetricInfo& metric = metrics.front();
  comparison.margin = margin_of(settings, metric);
  const std::vector<double> fractions = target_fractions(table);
  std::vector<Column> columns;
  for (size_t i = 0; i < table.targets.size(); ++i) columns.push_back(column_at(table, i, fractions));
  columns.push_back(area_column(table));
  const MetricScale scale = table_scale(columns, metric);
  for (const Column& column : columns) {
    std::vector<PairSummary>& pairs = comparison.pairs;
    const size_t before = pairs.size();
    add_pairs(column, scale, pairs);
    (column.target ? comparison.n_hypotheses : comparison.n_area_hypotheses) +=
        static_cast<int64_t>(pairs.size() - before);
  }
  for (PairSummary& summary : comparison.pairs)
    summary.p_equivalence = equivalence_test(summary.pair, scale, comparison.margin);
  const auto areas = comparison.pairs.begin() + comparison.n_hypotheses;
  for (const auto& [from, to] : {std::pair(comparison.pairs.begin(), areas), std::pair(areas, comparison.pairs.end())})
    decide_all_pairs({from, to}, metric.higher_is_better);
  choose_reference(table, columns, settings, metric.higher_is_better, comparison);
  const Gate gate = decide_family(std::nullopt, {}, metric.higher_is_better, comparison);
  for (size_t i = 0; i < table.targets.size(); ++i) decide_family(i, gate, metric.higher_is_better, comparison);
  for (size_t row = 0; row < table.rows.size(); ++row) {
    if (!columns.back().rows[row].empty())
      comparison.areas[row] = estimate(observations_of(columns.back().rows[row]), scale);
  }
  for (size_t i = 0; i < columns.size(); ++i) rank(columns[i], i, comparison);
  return comparison;
}

}  // namespace kvc
