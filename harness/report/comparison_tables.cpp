#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/report/report_tables.h"

namespace kvc {
namespace {

std::string range_text(const std::optional<RankRange>& range) {
  if (!range) return kNoValue;
  return range->best == range->worst ? fmt::format("{}", range->best) : fmt::format("{}–{}", range->best, range->worst);
}

const MetricInfo* primary(const Table& table) {
  const auto& metrics = metrics_of_task(table.task.is_object() ? table.task.value("name", "") : "");
  return metrics.empty() ? nullptr : &metrics.front();
}

std::string p_text(double p) {
  return p < 0.001 ? "p<0.001" : fmt::format("p={:.{}f}", p, p < 0.01 ? 3 : 2);
}

// The row of the best mean at a target, the first of equals.
std::optional<size_t> best_row(const Table& table, size_t target, bool higher_is_better) {
  std::optional<size_t> best;
  const auto mean = [&](size_t row) {
    const Row& own = table.rows[row];
    const auto& cell = own.cells[target] ? own.cells[target] : own.untargeted;
    const double value = cell->metrics.front().estimate.mean;
    return higher_is_better ? value : -value;
  };
  for (size_t row = 0; row < table.rows.size(); ++row) {
    if (!table.comparison.ranks[row][target]) continue;
    if (!best || mean(row) > mean(*best)) best = row;
  }
  return best;
}

// `row` against `best`, from its own side.
std::string versus(const Table& table, size_t target, size_t row, size_t best, const MetricInfo& metric) {
  for (const PairSummary& summary : table.comparison.pairs) {
    if (summary.target != target || summary.first != std::min(row, best) || summary.second != std::max(row, best))
      continue;
    const bool own_side = summary.first == row;
    const Pair& pair = summary.pair;
    const bool as_counted = own_side == metric.higher_is_better;  // a lower value wins where lower is better
    double difference = own_side ? pair.difference.mean : -pair.difference.mean;
    if (std::abs(difference) < 0.0005) difference = 0;  // no "-0.000"
    return fmt::format("{:+.3f} ({}/{}/{}) {}{}", difference, as_counted ? pair.wins : pair.losses,
                       as_counted ? pair.losses : pair.wins, pair.ties, p_text(summary.p_holm),
                       summary.better == 0 ? "" : " *");
  }
  return kNoValue;
}

std::optional<double> median(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

std::string detectable_text(const Comparison& comparison, const MetricInfo& metric) {
  std::vector<double> alone, corrected;
  for (const PairSummary& summary : comparison.pairs) {
    if (!summary.target) continue;
    if (summary.detectable) alone.push_back(*summary.detectable);
    if (summary.detectable_corrected) corrected.push_back(*summary.detectable_corrected);
  }
  const auto text = [&](const std::vector<double>& list) -> std::string {
    const auto middle = median(list);
    if (!middle || 2 * list.size() < static_cast<size_t>(comparison.n_hypotheses)) return "none";
    return fmt::format("{:.{}f}", *middle, metric.share ? 3 : 4);
  };
  return fmt::format(
      "The smallest difference this run could detect ({:.0f} % power, median pair): {} for one pair alone, {} for one "
      "among all.",
      100 * kPower, text(alone), text(corrected));
}

}  // namespace

TextTable rank_table(const Table& table) {
  TextTable text{{"method", "queries"}, {}};
  if (primary(table) == nullptr || table.comparison.pairs.empty()) return text;
  for (const Json& target : table.targets) text.header.push_back(target_text(target));
  text.header.insert(text.header.end(), {"mean over log ratio", "rank of it"});
  const int digits = primary(table)->share ? 3 : 4;
  for (size_t row = 0; row < table.rows.size(); ++row) {
    const auto& ranks = table.comparison.ranks[row];
    if (std::none_of(ranks.begin(), ranks.end(), [](const auto& range) { return range.has_value(); })) continue;
    const std::string& queries = table.rows[row].queries_label;
    std::vector<std::string> cells = {table.rows[row].method_label, queries.empty() ? kNoValue : queries};
    for (size_t i = 0; i < table.targets.size(); ++i) cells.push_back(range_text(ranks[i]));
    std::string area = kNoValue;
    if (const auto& estimate = table.comparison.areas[row]) {
      const bool few = estimate->n_documents < kFewDocuments;
      const Interval& interval = few ? estimate->questions : estimate->interval;
      area = fmt::format("{:.{}f}", estimate->mean, digits);
      const bool spread = !primary(table)->share || interval.standard_error > 0;  // a width of 0 would claim certainty
      if (interval.exists() && spread)
        area += fmt::format(" ± {:.{}f}{}", interval.half_width(), digits, few ? " q" : "");
    }
    cells.push_back(area);
    cells.push_back(range_text(ranks.back()));
    text.rows.push_back(std::move(cells));
  }
  return text;
}

TextTable versus_best_table(const Table& table) {
  TextTable text{{"method", "queries"}, {}};
  const MetricInfo* metric = primary(table);
  if (metric == nullptr || table.comparison.n_hypotheses == 0) return text;
  std::vector<std::optional<size_t>> best;
  for (size_t i = 0; i < table.targets.size(); ++i) {
    text.header.push_back(target_text(table.targets[i]));
    best.push_back(best_row(table, i, metric->higher_is_better));
  }
  for (size_t row = 0; row < table.rows.size(); ++row) {
    std::vector<std::string> cells = {table.rows[row].method_label, table.rows[row].queries_label};
    if (cells.back().empty()) cells.back() = kNoValue;
    bool any = false;
    for (size_t i = 0; i < table.targets.size(); ++i) {
      const bool there = table.comparison.ranks[row][i].has_value();
      any = any || there;
      cells.push_back(!there ? kNoValue : *best[i] == row ? "best mean" : versus(table, i, row, *best[i], *metric));
    }
    if (any) text.rows.push_back(std::move(cells));
  }
  return text;
}

std::string comparison_note(const Table& table) {
  const Comparison& comparison = table.comparison;
  const MetricInfo* metric = primary(table);
  if (metric == nullptr || comparison.n_hypotheses == 0) return "";
  int64_t decided = 0, fewest = 0, most = 0;
  for (const PairSummary& summary : comparison.pairs) {
    if (!summary.target) continue;
    decided += summary.better != 0;
    const int64_t documents = summary.pair.difference.n_documents;
    fewest = fewest == 0 ? documents : std::min(fewest, documents);
    most = std::max(most, documents);
  }
  std::string note =
      fmt::format("{} of {} pairs are decided (*) at 5 % over all of them (Holm). ", decided, comparison.n_hypotheses);
  if (fewest >= kFewDocuments) {
    note += metric->share ? "A pair is decided by the t test clustered by document and McNemar's exact test together. "
                          : "A pair is decided by the t test clustered by document. ";
  } else {
    note += fmt::format("With fewer than {} documents {} decides, over questions: it says nothing about others. ",
                        kFewDocuments, metric->share ? "McNemar's exact test" : "a paired t test");
  }
  return note + detectable_text(comparison, *metric);
}

}  // namespace kvc
