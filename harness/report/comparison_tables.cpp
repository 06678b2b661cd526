// What comparison.h decides, as tables for people.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/core/count.h"
#include "harness/report/report_tables.h"

namespace kvc {
namespace {

const MetricInfo* primary(const Table& table) {
  const auto& metrics = metrics_of_task(table.task.is_object() ? table.task.value("name", "") : "");
  return metrics.empty() ? nullptr : &metrics.front();
}

int64_t contestants(const Table& table, size_t place) {
  return std::count_if(table.comparison.ranks.begin(), table.comparison.ranks.end(),
                       [&](const auto& ranks) { return ranks[place].has_value(); });
}

std::string range_text(const std::optional<RankRange>& range, int64_t methods) {
  if (!range) return kNoValue;
  if (range->best == 1 && range->worst == methods && methods > 1) return "undecided";
  return range->best == range->worst ? fmt::format("{}", range->best) : fmt::format("{}–{}", range->best, range->worst);
}

// Of all pairs at `target`, how many Benjamini and Hochberg decide.
int64_t decided_pairs(const Table& table, std::optional<size_t> target) {
  const auto& pairs = table.comparison.pairs;
  return std::count_if(pairs.begin(), pairs.end(),
                       [&](const PairSummary& pair) { return pair.target == target && pair.better_bh != 0; });
}

const PairSummary* find_pair(const Table& table, std::optional<size_t> target, size_t a, size_t b) {
  for (const PairSummary& summary : table.comparison.pairs) {
    if (summary.target == target && summary.first == std::min(a, b) && summary.second == std::max(a, b))
      return &summary;
  }
  return nullptr;
}

Interval turned(Interval interval) {
  std::swap(interval.low, interval.high);
  interval.low = -interval.low;
  interval.high = -interval.high;
  return interval;
}

// "0.71x [0.60, 0.85]" for ratios, "-0.30 [-0.50, -0.10] (0/6/14)" for differences, from the side of `row`.
std::string effect_text(const PairSummary& summary, bool own_side, const MetricInfo& metric) {
  const Pair& pair = summary.pair;
  if (pair.ratio) {
    const double ratio = own_side ? *pair.ratio : 1 / *pair.ratio;
    const double low = own_side ? pair.ratio_interval.low : 1 / pair.ratio_interval.high;
    const double high = own_side ? pair.ratio_interval.high : 1 / pair.ratio_interval.low;
    return fmt::format("{:.3g}x [{:.3g}, {:.3g}]", ratio, low, high);
  }
  const Interval& interval = pair.difference.interval;
  std::string text = estimate_text(own_side ? pair.difference.mean : -pair.difference.mean,
                                   own_side ? interval : turned(interval), metric.share);
  const bool as_counted = own_side == metric.higher_is_better;  // a lower value wins where lower is better
  return text + fmt::format(" ({}/{}/{})", as_counted ? pair.wins : pair.losses, as_counted ? pair.losses : pair.wins,
                            pair.ties);
}

std::string versus(const Table& table, std::optional<size_t> target, size_t row, const MetricInfo& metric) {
  const size_t reference = *table.comparison.reference;
  const PairSummary* summary = find_pair(table, target, row, reference);
  if (summary == nullptr) return kNoValue;
  std::string text = effect_text(*summary, summary->first == row, metric);
  if (summary->p_holm) text += " " + p_text(*summary->p_holm) + (summary->better == 0 ? "" : " *");
  return text + (summary->p_equivalence.value_or(1) <= 1 - kLevel ? " =" : "");
}

std::optional<double> median(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

// What the families of the targets could have found.
std::string detectable_text(const Table& table, const MetricInfo& metric) {
  std::vector<double> alone, corrected;
  size_t tested = 0;
  bool ratio = false;
  for (const PairSummary& summary : table.comparison.pairs) {
    if (!summary.target || !summary.p_holm) continue;
    ++tested;
    ratio = ratio || summary.pair.ratio.has_value();
    if (summary.detectable) alone.push_back(*summary.detectable);
    if (summary.detectable_corrected) corrected.push_back(*summary.detectable_corrected);
  }
  if (tested == 0) return "";
  const auto text = [&](const std::vector<double>& list) -> std::string {
    const auto middle = median(list);
    if (!middle || 2 * list.size() < tested) return "none";
    if (ratio) return fmt::format("a {} {:.2f} times as large", metric.name, *middle);
    return metric.share ? fmt::format("{:.2f}", *middle) : fmt::format("{:.3g}", *middle);
  };
  return fmt::format(
      " This run finds, with {:.0f} % power at the median pair: {} for one pair alone, {} for one in a column.",
      100 * kPower, ratio ? text(alone) : "a difference of " + text(alone), text(corrected));
}

}  // namespace

TextTable rank_table(const Table& table) {
  TextTable text{{"method", "queries"}, {}};
  if (primary(table) == nullptr || table.comparison.pairs.empty()) return text;
  std::vector<size_t> places;  // a column in which nothing is decided is left out
  for (size_t i = 0; i < table.targets.size(); ++i) {
    if (decided_pairs(table, i) == 0) continue;
    places.push_back(i);
    text.header.push_back(target_text(table.targets[i]));
  }
  const bool area_ranks = decided_pairs(table, std::nullopt) > 0;
  const bool areas = table.comparison.n_area_hypotheses > 0;
  if (areas) text.header.push_back("mean over log ratio");
  if (area_ranks) text.header.push_back("rank of it");
  if (text.header.size() == 2) return text;
  for (size_t row = 0; row < table.rows.size(); ++row) {
    const auto& ranks = table.comparison.ranks[row];
    if (std::none_of(ranks.begin(), ranks.end(), [](const auto& range) { return range.has_value(); })) continue;
    const std::string& queries = table.rows[row].queries_label;
    std::vector<std::string> cells = {table.rows[row].method_label, queries.empty() ? kNoValue : queries};
    for (const size_t place : places) cells.push_back(range_text(ranks[place], contestants(table, place)));
    const auto& area = table.comparison.areas[row];
    if (areas) cells.push_back(area ? estimate_text(area->mean, area->interval, primary(table)->share) : kNoValue);
    if (area_ranks) cells.push_back(range_text(ranks.back(), contestants(table, table.targets.size())));
    text.rows.push_back(std::move(cells));
  }
  return text;
}

std::string rank_note(const Table& table) {
  const Comparison& comparison = table.comparison;
  if (primary(table) == nullptr || comparison.pairs.empty()) return "";
  int64_t decided = 0, tested = 0;
  for (const PairSummary& summary : comparison.pairs) {
    decided += summary.target && summary.better_bh != 0;
    tested += summary.target && summary.p_bh;
  }
  if (tested == 0)
    return fmt::format("Ranks: undecided. Fewer than {} documents are too few to decide any pair.", kFewDocuments);
  std::string note =
      fmt::format("{} of all {} {} decided (Benjamini-Hochberg: at most 5 % of these are expected to be wrong). ",
                  decided, count(comparison.n_hypotheses, "pair"), decided == 1 ? "is" : "are");
  note +=
      decided == 0 ? "Every rank is undecided." : "A range is a tie; columns in which nothing is decided are left out.";
  return note;
}

TextTable versus_reference_table(const Table& table) {
  TextTable text{{"method", "queries"}, {}};
  const MetricInfo* metric = primary(table);
  if (metric == nullptr || table.comparison.pairs.empty() || !table.comparison.reference) return text;
  const bool areas = table.comparison.n_area_hypotheses > 0;
  if (areas) text.header.push_back("area");
  for (const Json& target : table.targets) text.header.push_back(target_text(target));
  for (size_t row = 0; row < table.rows.size(); ++row) {
    if (!table.rows[row].ranked() || row == table.comparison.reference) continue;
    std::vector<std::string> cells = {table.rows[row].method_label, table.rows[row].queries_label};
    if (cells.back().empty()) cells.back() = kNoValue;
    if (areas) cells.push_back(versus(table, std::nullopt, row, *metric));
    for (size_t i = 0; i < table.targets.size(); ++i) cells.push_back(versus(table, i, row, *metric));
    text.rows.push_back(std::move(cells));
  }
  return text;
}

std::string versus_reference_note(const Table& table) {
  const Comparison& comparison = table.comparison;
  const MetricInfo* metric = primary(table);
  if (metric == nullptr || comparison.pairs.empty() || !comparison.reference) return "";
  int64_t decided = 0, tested = 0, fewest = 0;
  bool equivalent = false;
  for (const PairSummary& summary : comparison.pairs) {
    const int64_t documents = summary.pair.difference.n_documents;
    fewest = fewest == 0 ? documents : std::min(fewest, documents);
    const bool shown = summary.first == comparison.reference || summary.second == comparison.reference;
    equivalent = equivalent || (shown && summary.p_equivalence.value_or(1) <= 1 - kLevel);
    if (!summary.target) continue;
    tested += summary.p_holm.has_value();
    decided += summary.better != 0;
  }
  std::string note = comparison.reference_is_declared
                         ? "The reference is the sweep file's compare_to. "
                         : "The reference is the method with the best mean; that the data chose it is paid for in p. ";
  if (tested == 0) {
    note += fmt::format("No p: fewer than {} documents are too few to decide.", kFewDocuments);
  } else {
    note += fmt::format("{} of {} are decided (*) at 5 % for a column together (Holm){}.", decided, tested,
                        comparison.n_area_hypotheses > 0 ? ", after the area" : "");
    if (fewest < kFewDocuments)
      note += fmt::format(" Fewer than {} documents: this speaks of these documents only.", kFewDocuments);
  }
  if (equivalent) note += fmt::format(" =: equivalent within {:g} (two one-sided tests at 5 %).", comparison.margin);
  return note + detectable_text(table, *metric);
}

}  // namespace kvc
