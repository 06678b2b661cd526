#include "harness/report/cell_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/report/label.h"
#include "harness/report/text_table.h"

namespace kvc {
namespace {

// Sums `name` over the done records that have it.
struct Sum {
  double total = 0;
  int64_t count = 0;
  double least = 0, most = 0;
  std::optional<double> mean() const {
    return count == 0 ? std::nullopt : std::optional(total / static_cast<double>(count));
  }
};

Sum sum(const CellRecords& cell, const Json Record::*object, const char* name) {
  Sum result;
  for (const JudgedRecord& judged : cell.records) {
    const auto value = number_in(judged.record->*object, name);
    if (judged.failed || !value) continue;
    result.least = result.count == 0 ? *value : std::min(result.least, *value);
    result.most = result.count == 0 ? *value : std::max(result.most, *value);
    result.total += *value;
    ++result.count;
  }
  return result;
}

SizeSummary sizes_of(const CellRecords& cell) {
  SizeSummary sizes;
  double kept = 0;
  double span = 0;
  for (const JudgedRecord& judged : cell.records) {
    const auto fraction = number_in(judged.record->sizes, "kept_fraction");
    const auto tokens = number_in(judged.record->sizes, "compactable_tokens");
    if (judged.failed || !fraction || !tokens) continue;
    kept += *fraction * *tokens;
    span += *tokens;
  }
  if (span > 0) sizes.kept_fraction = kept / span;
  if (kept > 0) sizes.compaction_ratio = span / kept;
  const Sum before = sum(cell, &Record::sizes, "bytes_before");
  const Sum after = sum(cell, &Record::sizes, "bytes_after");
  sizes.bytes_before = before.mean();
  sizes.bytes_after = after.mean();
  if (after.total > 0) sizes.bytes_ratio = before.total / after.total;
  sizes.allocated_bytes_after = sum(cell, &Record::sizes, "allocated_bytes_after").mean();
  const Sum least = sum(cell, &Record::sizes, "head_len_min");
  const Sum most = sum(cell, &Record::sizes, "head_len_max");
  if (least.count > 0) sizes.head_len_min = least.least;
  if (most.count > 0) sizes.head_len_max = most.most;
  sizes.head_len_mean = sum(cell, &Record::sizes, "head_len_mean").mean();
  return sizes;
}

std::vector<Observation> column(const std::vector<ScoredQuestion>& questions, size_t metric) {
  std::vector<Observation> list;
  list.reserve(questions.size());
  for (const ScoredQuestion& question : questions) {
    if (!std::isnan(question.values[metric])) list.push_back({question.document, question.values[metric]});
  }
  return list;
}

MetricScale scale_of(const MetricInfo& info, const std::vector<Observation>& values) {
  if (info.share) return MetricScale::kShare;
  const bool negative = std::any_of(values.begin(), values.end(), [](const Observation& o) { return o.value < 0; });
  return negative ? MetricScale::kReal : MetricScale::kPositive;
}

// The same questions of another cell: for each of `own` its place in `other`, or kNowhere.
constexpr size_t kNowhere = static_cast<size_t>(-1);
std::vector<size_t> places_in(const CellRecords* other, const std::vector<ScoredQuestion>& own) {
  std::vector<size_t> places(own.size(), kNowhere);
  if (other == nullptr) return places;
  size_t at = 0;
  for (size_t i = 0; i < own.size(); ++i) {
    while (at < other->questions.size() && other->questions[at].key() < own[i].key()) ++at;
    if (at < other->questions.size() && other->questions[at].key() == own[i].key()) places[i] = at;
  }
  return places;
}

// What full cache and floor have on the questions of a cell.
struct Beside {
  Beside(const CellRecords& cell, const CellRecords* full_cache, const CellRecords* no_context)
      : full(full_cache),
        floor(no_context),
        in_full(places_in(full_cache, cell.questions)),
        in_floor(places_in(no_context, cell.questions)) {}
  const CellRecords* full;
  const CellRecords* floor;
  std::vector<size_t> in_full, in_floor;
};

void compare(const CellRecords& cell, const Beside& beside, size_t metric, MetricScale scale, double margin,
             MetricSummary& summary) {
  std::vector<PairedValues> pairs;
  std::vector<RetainedObservation> retained;
  bool full_is_zero = scale == MetricScale::kPositive;  // KL: the full cache against itself
  for (size_t i = 0; i < cell.questions.size(); ++i) {
    const ScoredQuestion& own = cell.questions[i];
    if (beside.in_full[i] == kNowhere) continue;
    const double value = own.values[metric];
    const double ceiling = beside.full->questions[beside.in_full[i]].values[metric];
    if (std::isnan(value) || std::isnan(ceiling)) continue;
    pairs.push_back({own.document, value, ceiling});
    full_is_zero = full_is_zero && ceiling == 0;
    if (beside.in_floor[i] == kNowhere) continue;
    const double least = beside.floor->questions[beside.in_floor[i]].values[metric];
    if (!std::isnan(least)) retained.push_back({own.document, value - least, ceiling - least});
  }
  if (!pairs.empty()) {
    VersusFull versus;
    versus.pair = compare_pair(pairs, scale);
    if (full_is_zero) {
      std::vector<Observation> values;
      for (const PairedValues& pair : pairs) values.push_back({pair.document, pair.first});
      versus.pair.difference = estimate(values, scale);
      versus.pair.test = PairTest::kTooFew;  // that it is above 0 is no finding
      versus.pair.p = std::nullopt;
    }
    versus.p_equivalence =
        full_is_zero ? below_margin_test(versus.pair.difference, margin) : equivalence_test(versus.pair, scale, margin);
    summary.versus_full = std::move(versus);
  }
  if (summary.info.share && summary.info.higher_is_better) summary.retained = retained_of(retained);
}

const CellRecords* untargeted_of(const TableRecords& table, const std::string& method) {
  for (const auto& [key, row] : table.rows) {
    if (plugin_name(row.method) == method && row.cells.count("null") > 0) return &row.cells.at("null");
  }
  return nullptr;
}

// Adds `other` to `total`, list by list; false where their shapes differ or something is no number.
bool add_lists(Json& total, const Json& other) {
  if (total.is_number() && other.is_number()) {
    total = total.get<double>() + other.get<double>();
    return true;
  }
  if (!total.is_array() || !other.is_array() || total.size() != other.size()) return false;
  for (size_t i = 0; i < total.size(); ++i) {
    if (!add_lists(total[i], other[i])) return false;
  }
  return true;
}

void divide_lists(Json& total, double count) {
  if (total.is_number()) total = total.get<double>() / count;
  if (!total.is_array()) return;
  for (Json& item : total) divide_lists(item, count);
}

// Means over documents of what task head_errors notes; null where there is nothing, or not of one shape.
Json heads_of(const CellRecords& cell) {
  Json heads;
  double count = 0;
  for (const JudgedRecord& judged : cell.records) {
    if (judged.failed || !judged.record->task_notes.contains("heads")) continue;
    const Json& own = judged.record->task_notes.at("heads");
    if (!own.is_object()) continue;
    count += 1;
    if (heads.is_null()) {
      heads = own;
      continue;
    }
    for (auto& [name, list] : heads.items()) {
      if (!own.contains(name) || !add_lists(list, own.at(name))) return nullptr;
    }
  }
  if (heads.is_null()) return nullptr;
  for (auto& [name, list] : heads.items()) divide_lists(list, count);
  return heads;
}

void count_records(const CellRecords& cell, const TableRecords& table, const ComparisonSettings& settings,
                   CellSummary& summary) {
  for (const JudgedRecord& judged : cell.records) {
    ++(judged.failed ? summary.n_failed : summary.n_done);
    if (judged.failed && summary.first_error.empty()) summary.first_error = judged.error;
  }
  summary.n_missing = static_cast<int64_t>(table.documents.size()) - summary.n_done - summary.n_failed;
  for (const std::string& id : summary.cell_ids) {
    const auto found = settings.stopped.find(id);
    if (found == settings.stopped.end()) continue;
    summary.stopped = found->second;
    summary.n_missing = 0;  // nobody asks for them
  }
}

}  // namespace

CellSummary summarize(const CellRecords& cell, const TableRecords& table, const ComparisonSettings& settings) {
  CellSummary summary;
  summary.target = cell.target;
  summary.cell_ids.assign(cell.cell_ids.begin(), cell.cell_ids.end());
  count_records(cell, table, settings, summary);
  const CellRecords* const full = untargeted_of(table, "full_cache");
  const Beside beside(cell, full, untargeted_of(table, "no_context"));
  const std::vector<MetricInfo>& metrics = metrics_of_task(plugin_name(table.task));
  for (size_t i = 0; i < metrics.size(); ++i) {
    const std::vector<Observation> values = column(cell.questions, i);
    const MetricScale scale = scale_of(metrics[i], values);
    MetricSummary metric{metrics[i], estimate(values, scale), std::nullopt, std::nullopt};
    if (!summary.stopped.is_null()) {
      metric.estimate.interval = metric.estimate.questions = metric.estimate.bootstrap = {};
    } else if (&cell != full) {
      compare(cell, beside, i, scale, margin_of(settings, metrics[i]), metric);
    }
    summary.metrics.push_back(std::move(metric));
  }
  summary.answers = cell.answers;
  summary.questions = cell.questions;
  summary.sizes = sizes_of(cell);
  summary.heads = heads_of(cell);
  summary.compaction_shared_s = sum(cell, &Record::seconds, "compaction_shared_s").mean();
  summary.compaction_s = sum(cell, &Record::seconds, "compaction_s").mean();
  return summary;
}

std::span<const CellQuantity> cell_quantities() {
  using Cell = const CellSummary&;
  static constexpr auto number = [](const std::optional<double>& value, const char* format) {
    return value ? fmt::format(fmt::runtime(format), *value) : kNoValue;
  };
  static constexpr auto bytes = [](const std::optional<double>& value) {
    return value ? bytes_text(*value) : kNoValue;
  };
  static const CellQuantity kQuantities[] = {
      {"sizes", "kept_fraction", [](Cell c) { return c.sizes.kept_fraction; }, true, "kept",
       [](Cell c) { return number(c.sizes.kept_fraction, "{:.4f}"); }},
      {"sizes", "compaction_ratio", [](Cell c) { return c.sizes.compaction_ratio; }, true, "ratio",
       [](Cell c) { return ratio_text(c.sizes.compaction_ratio); }},
      {nullptr, "", nullptr, false, "cache", [](Cell c) { return bytes(c.sizes.bytes_after); }},
      {"sizes", "bytes_before", [](Cell c) { return c.sizes.bytes_before; }, true, "of",
       [](Cell c) { return bytes(c.sizes.bytes_before); }},
      {"sizes", "bytes_after", [](Cell c) { return c.sizes.bytes_after; }, true, nullptr, nullptr},
      {"sizes", "bytes_ratio", [](Cell c) { return c.sizes.bytes_ratio; }, true, "bytes ratio",
       [](Cell c) { return ratio_text(c.sizes.bytes_ratio); }},
      {"sizes", "allocated_bytes_after", [](Cell c) { return c.sizes.allocated_bytes_after; }, false, nullptr, nullptr},
      {"sizes", "head_len_min", [](Cell c) { return c.sizes.head_len_min; }, false, nullptr, nullptr},
      {"sizes", "head_len_mean", [](Cell c) { return c.sizes.head_len_mean; }, false, nullptr, nullptr},
      {"sizes", "head_len_max", [](Cell c) { return c.sizes.head_len_max; }, false, "head length",
       [](Cell c) { return number(c.sizes.head_len_min, "{:.0f}") + ".." + number(c.sizes.head_len_max, "{:.0f}"); }},
      {"seconds", "compaction_shared_s", [](Cell c) { return c.compaction_shared_s; }, true, "shared s",
       [](Cell c) { return seconds_text(c.compaction_shared_s); }},
      {"seconds", "compaction_s", [](Cell c) { return c.compaction_s; }, true, "own s",
       [](Cell c) { return seconds_text(c.compaction_s); }},
  };
  return kQuantities;
}

}  // namespace kvc
