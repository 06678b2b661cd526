#include "harness/report/report_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/core/count.h"
#include "harness/core/stable_hash.h"
#include "harness/report/cell_summary.h"

namespace kvc {
namespace {

constexpr auto kNone = kNoValue;

std::string name_of_task(const Table& table) {
  return table.task.is_object() ? table.task.value("name", "") : "";
}

int digits_of(double mean, bool share) {
  if (share) return 2;
  if (mean == 0 || !std::isfinite(mean)) return 2;
  return std::clamp(2 - static_cast<int>(std::floor(std::log10(std::abs(mean)))), 0, 5);
}

// No "-0.00".
double rounded(double value, int digits) {
  const double scale = std::pow(10.0, digits);
  const double result = std::round(value * scale) / scale;
  return result == 0 ? 0 : result;
}

bool is_equivalent(const MetricSummary& metric) {
  return metric.versus_full && metric.versus_full->p_equivalence_holm.value_or(1) <= 1 - kLevel;
}

std::string value_text(const MetricSummary& metric) {
  const Estimate& estimate = metric.estimate;
  if (estimate.n_questions == 0) return kNone;
  return estimate_text(estimate.mean, estimate.interval, metric.info.share) + (is_equivalent(metric) ? " =" : "");
}

std::string cell_text(const std::optional<CellSummary>& cell, size_t metric, int64_t most) {
  if (!cell) return kNone;
  std::string text = cell->n_done == 0 ? "" : value_text(cell->metrics[metric]);
  const int64_t n = cell->n_done == 0 ? 0 : cell->metrics[metric].estimate.n_questions;
  if (n > 0 && n != most) text += fmt::format(" (n={})", n);
  const auto note = [&](int64_t count, const char* what) {
    if (count > 0) text += fmt::format("{}({} {})", text.empty() ? "" : " ", count, what);
  };
  note(cell->n_failed, "failed");
  note(cell->n_missing, "missing");
  if (!cell->stopped.is_null()) text += fmt::format(" ({})", stopped_text(cell->stopped));
  return text;
}

std::string retained_text(const CellSummary& cell, size_t metric) {
  const Retained& retained = *cell.metrics[metric].retained;
  return fmt::format("{:.0f} % [{:.0f}, {:.0f}]", 100 * retained.value, 100 * retained.interval.low,
                     100 * retained.interval.high);
}

// A row for everything of these roles that has a text for any target.
TextTable table_of(const Table& table, Role first, Role last, const auto& text_of) {
  TextTable text{{"method", "queries"}, {}};
  for (const Json& target : table.targets) text.header.push_back(target_text(target));
  if (table.targets.empty()) text.header.push_back("value");
  for (const Row& row : table.rows) {
    if (row.role < first || row.role > last) continue;
    std::vector<std::string> cells = {row.method_label, row.queries_label.empty() ? kNone : row.queries_label};
    bool any = false;
    for (size_t i = 2; i < text.header.size(); ++i) {
      const bool targeted = i - 2 < row.cells.size() && row.cells[i - 2].has_value();
      const std::optional<CellSummary>& cell = targeted ? row.cells[i - 2] : row.untargeted;
      const std::string own = cell ? text_of(*cell) : "";
      any = any || !own.empty();
      cells.push_back(own.empty() ? kNone : own);
    }
    if (any) text.rows.push_back(std::move(cells));
  }
  return text;
}

// The fewest documents of any cell that has answers; 0 where none has.
int64_t fewest_documents(const Table& table, size_t metric) {
  int64_t fewest = 0;
  for (const Row& row : table.rows) {
    for (const CellSummary* cell : row.measured()) {
      const Estimate& estimate = cell->metrics[metric].estimate;
      if (estimate.n_questions == 0) continue;
      fewest = fewest == 0 ? estimate.n_documents : std::min(fewest, estimate.n_documents);
    }
  }
  return fewest;
}

std::string documents_text(int64_t n) {
  return count(n, "document");
}

std::string margin_text(const Table& table) {
  return fmt::format("{:g}", table.comparison.margin);
}

}  // namespace

std::string estimate_text(double mean, const Interval& interval, bool share) {
  const int digits = digits_of(mean, share);
  const std::string text = fmt::format("{:.{}f}", rounded(mean, digits), digits);
  if (!interval.exists()) return text;
  return fmt::format("{} [{:.{}f}, {:.{}f}]", text, rounded(interval.low, digits), digits,
                     rounded(interval.high, digits), digits);
}

std::string stopped_text(const Json& stopped) {
  const auto n = stopped.value("documents", int64_t{0});
  std::string state = stopped.value("state", "stopped");
  std::replace(state.begin(), state.end(), '_', ' ');
  return fmt::format("{} after {}", state, documents_text(n));
}

TextTable stopped_table(const Table& table) {
  TextTable text{{"method", "queries", "target", "left as", "documents", "loss", "sequential interval"}, {}};
  for (const Row& row : table.rows) {
    for (const CellSummary* cell : row.measured()) {
      const Json& stopped = cell->stopped;
      if (!stopped.is_object() || !stopped.value("low", Json()).is_number() ||
          !stopped.value("high", Json()).is_number())
        continue;
      const bool kl = stopped.value("metric", "") == "kl";
      const auto number = [&](const Json& value) {
        if (!value.is_number()) return std::string(kNone);
        return kl ? fmt::format("{:.3g}", value.get<double>()) : fmt::format("{:.1f} %", 100 * value.get<double>());
      };
      std::string state = stopped.value("state", "");
      std::replace(state.begin(), state.end(), '_', ' ');
      text.rows.push_back({row.method_label, row.queries_label.empty() ? kNone : row.queries_label,
                           target_text(cell->target), state, fmt::format("{}", stopped.value("documents", int64_t{0})),
                           number(stopped.value("loss", Json())),
                           fmt::format("{} to {}", number(stopped.at("low")), number(stopped.at("high")))});
    }
  }
  return text;
}

std::string stopped_note(const Table& table) {
  for (const Row& row : table.rows) {
    for (const CellSummary* cell : row.measured()) {
      const Json& stopped = cell->stopped;
      if (!stopped.is_object() || !stopped.value("tolerance", Json()).is_number()) continue;
      const std::string metric = stopped.value("metric", "");
      const double tolerance = stopped.at("tolerance").get<double>();
      return fmt::format(
          "Measured on no further documents as soon as the rule of `stop_when` decided. Loss: {}; tolerated: {}. The "
          "interval ({:g} %) holds at whatever document it was looked at; means of these cells elsewhere in this "
          "report "
          "have no interval and no test, since one for a number of documents fixed beforehand would not hold.",
          metric == "kl"          ? "mean KL, each question's cut off at the bound, nats per token"
          : metric == "agreement" ? "share of the full cache's tokens at which another is the likeliest"
                                  : "of what the full cache answered right, the share that goes wrong",
          metric == "kl" ? fmt::format("{:g} nats", tolerance) : fmt::format("{:g} %", 100 * tolerance),
          100 * stopped.value("confidence", 0.95));
    }
  }
  return "";
}

std::string p_text(double p) {
  return p < 0.001 ? "p<0.001" : fmt::format("p={:.{}f}", p, p < 0.01 ? 3 : 2);
}

int64_t most_questions(const Table& table) {
  int64_t most = 0;
  for (const Row& row : table.rows) {
    for (const CellSummary* cell : row.measured()) {
      if (!cell->metrics.empty()) most = std::max(most, cell->metrics.front().estimate.n_questions);
    }
  }
  return most;
}

TextTable metric_table(const Table& table, size_t metric) {
  TextTable text{{"method", "queries"}, {}};
  const int64_t most = most_questions(table);
  for (const Json& target : table.targets) text.header.push_back(target_text(target));
  if (table.targets.empty()) text.header.push_back("value");
  for (const Row& row : table.rows) {
    std::vector<std::string> cells = {row.method_label, row.queries_label.empty() ? kNone : row.queries_label};
    for (size_t i = 2; i < text.header.size(); ++i) {
      const bool targeted = i - 2 < row.cells.size() && row.cells[i - 2].has_value();
      cells.push_back(cell_text(targeted || !row.untargeted ? row.cells.at(i - 2) : row.untargeted, metric, most));
    }
    text.rows.push_back(std::move(cells));
  }
  return text;
}

TextTable retained_table(const Table& table, size_t metric) {
  return table_of(table, Role::kMethod, Role::kMethod, [&](const CellSummary& cell) {
    return cell.metrics[metric].retained && !cell.target.is_null() ? retained_text(cell, metric) : "";
  });
}

std::string retained_note(const Table& table, size_t metric) {
  if (retained_table(table, metric).rows.empty()) return "";
  return fmt::format(
      "[low, high]: 95 % interval (Fieller), {}. –: full_cache and no_context cannot be told apart on these questions.",
      fewest_documents(table, metric) < kFewDocuments ? "over questions" : "clustered by document");
}

TextTable versus_full_table(const Table& table, size_t metric) {
  const int64_t most = most_questions(table);
  return table_of(table, Role::kMethod, Role::kFloor, [&](const CellSummary& cell) -> std::string {
    const MetricSummary& summary = cell.metrics[metric];
    if (!summary.versus_full || summary.versus_full->pair.test == PairTest::kTooFew) return "";
    const Estimate& difference = summary.versus_full->pair.difference;
    std::string text = estimate_text(difference.mean, difference.interval, summary.info.share);
    const std::optional<double>& holm = summary.versus_full->p_holm;
    const std::optional<double>& p = holm ? holm : summary.versus_full->pair.p;
    if (p) text += " " + p_text(*p) + (*p <= 1 - kLevel ? " *" : "");
    if (difference.n_questions < most) text += fmt::format(" (n={})", difference.n_questions);
    return text + (is_equivalent(summary) ? " =" : "");
  });
}

std::string versus_full_note(const Table& table, size_t metric) {
  if (versus_full_table(table, metric).rows.empty()) return "";
  std::string note =
      "p: the chance of such a difference between equals, Holm over the methods of a column; *: differs.";
  if (table.comparison.margin > 0) {
    note += fmt::format(" =: equivalent, shown to differ by less than {} (two one-sided tests at 5 %, Holm).",
                        margin_text(table));
  }
  note += " Neither mark: undecided.";
  if (const int64_t fewest = fewest_documents(table, metric); fewest < kFewDocuments)
    note += fmt::format(" All this is over the questions of {} and says nothing about others.", documents_text(fewest));
  return note;
}

TextTable by_document_table(const Table& table, size_t metric) {
  return table_of(table, Role::kCeiling, Role::kFloor, [&](const CellSummary& cell) -> std::string {
    const Estimate& estimate = cell.metrics[metric].estimate;
    return estimate.n_questions == 0 ? ""
                                     : estimate_text(estimate.mean_of_documents, {}, cell.metrics[metric].info.share);
  });
}

bool is_answer_check(const MetricInfo& metric) {
  return metric.name == "parse_rate" || metric.name == "length_limit_rate";
}

TextTable answers_table(const Table& table) {
  TextTable text{{"method", "queries"}, {}};
  const auto& metrics = metrics_of_task(name_of_task(table));
  if (std::none_of(metrics.begin(), metrics.end(), is_answer_check)) return text;
  const size_t n_columns = std::max<size_t>(1, table.targets.size());
  for (size_t i = 0; i < n_columns; ++i) {
    const std::string target = table.targets.empty() ? "" : target_text(table.targets[i]) + ": ";
    for (const MetricInfo& metric : metrics) {
      if (is_answer_check(metric)) text.header.push_back(target + (metric.name == "parse_rate" ? "unread" : "cut off"));
    }
  }
  for (const Row& row : table.rows) {
    std::vector<std::string> cells = {row.method_label, row.queries_label.empty() ? kNone : row.queries_label};
    for (size_t i = 0; i < n_columns; ++i) {
      const bool targeted = i < row.cells.size() && row.cells[i].has_value();
      const std::optional<CellSummary>& cell = targeted ? row.cells[i] : row.untargeted;
      for (size_t m = 0; m < metrics.size(); ++m) {
        if (!is_answer_check(metrics[m])) continue;
        const bool there = cell && cell->metrics[m].estimate.n_questions > 0;
        const double mean = there ? cell->metrics[m].estimate.mean : 0;
        cells.push_back(there ? fmt::format("{:.1f} %", 100 * (metrics[m].name == "parse_rate" ? 1 - mean : mean))
                              : kNone);
      }
    }
    text.rows.push_back(std::move(cells));
  }
  return text;
}

TextTable size_table(const std::vector<const Table*>& tables) {
  TextTable text{{"method", "queries", "target"}, {}};
  for (const CellQuantity& quantity : cell_quantities()) {
    if (quantity.header != nullptr) text.header.emplace_back(quantity.header);
  }
  std::set<std::string> seen;  // the tasks of a data set share their caches: the first that has the cell is shown
  for (const Table* table : tables) {
    for (const Row& row : table->rows) {
      for (const CellSummary* cell : row.measured()) {
        if (cell->n_done == 0 || !seen.insert(canonical_json(Json{row.method, row.queries, cell->target})).second)
          continue;
        std::vector<std::string> cells = {row.method_label, row.queries_label.empty() ? kNone : row.queries_label,
                                          cell->target.is_null() ? kNone : target_text(cell->target)};
        for (const CellQuantity& quantity : cell_quantities()) {
          if (quantity.header != nullptr) cells.push_back(quantity.text(*cell));
        }
        text.rows.push_back(std::move(cells));
      }
    }
  }
  return text;
}

TextTable stage_table(const std::vector<StageCost>& stages) {
  TextTable text{{"stage"}, {}};
  std::set<std::string> names;
  for (const StageCost& cost : stages) {
    text.header.push_back(cost.dataset_label);
    for (const auto& [name, seconds] : cost.parts) names.insert(name);
  }
  const auto line = [&](const std::string& name, const auto& value) {
    std::vector<std::string> cells = {name};
    for (const StageCost& cost : stages) cells.push_back(value(cost));
    text.rows.push_back(std::move(cells));
  };
  line("documents", [](const StageCost& c) { return std::to_string(c.n_documents); });
  line("prefill", [](const StageCost& c) { return seconds_text(c.prefill_s); });
  for (const std::string& name : names) {
    line(name, [&](const StageCost& cost) {
      for (const auto& [part, seconds] : cost.parts) {
        if (part == name) return seconds_text(seconds);
      }
      return std::string(kNone);
    });
  }
  line("whole grid", [](const StageCost& c) { return seconds_text(c.total_s()); });
  return text;
}

std::string interval_note(const Table& table, size_t metric) {
  const int64_t fewest = fewest_documents(table, metric);
  if (fewest == 0) return "";
  int64_t most = 0;
  bool intervals = false, equivalent = false;
  for (const Row& row : table.rows) {
    for (const CellSummary* cell : row.measured()) {
      most = std::max(most, cell->metrics[metric].estimate.n_documents);
      intervals = intervals || cell->metrics[metric].estimate.interval.exists();
      equivalent = equivalent || is_equivalent(cell->metrics[metric]);
    }
  }
  std::string note;
  if (intervals && fewest >= kFewDocuments)
    note = fmt::format("[low, high]: 95 % interval for documents like these {}.",
                       fewest == most ? fmt::format("{}", most) : fmt::format("{} to {}", fewest, most));
  if (intervals && fewest < kFewDocuments)
    note = fmt::format("[low, high]: 95 % interval over the questions of {}; it says nothing about other documents.",
                       documents_text(fewest));
  if (equivalent && metric == 0) note += fmt::format(" =: equivalent to the full cache within {}.", margin_text(table));
  return note;
}

}  // namespace kvc
