#include "harness/report/conclusions.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "harness/core/count.h"
#include "harness/report/terminal_report.h"

namespace kvc {
namespace {

const CellSummary* measured_at(const Row& row, size_t target) {
  if (row.cells[target]) return &*row.cells[target];
  return nullptr;
}

struct Standing {
  size_t row = 0;
  double mean = 0;
};

// Methods at a target, best mean first.
std::vector<Standing> standings(const Table& table, size_t target, const MetricInfo& metric) {
  std::vector<Standing> list;
  for (size_t r = 0; r < table.rows.size(); ++r) {
    const CellSummary* const cell = measured_at(table.rows[r], target);
    if (!table.rows[r].ranked() || cell == nullptr || cell->metrics.empty()) continue;
    if (!cell->stopped.is_null()) continue;  // measured on other documents than the rest
    if (cell->metrics.front().estimate.n_questions > 0) list.push_back({r, cell->metrics.front().estimate.mean});
  }
  std::stable_sort(list.begin(), list.end(), [&](const Standing& a, const Standing& b) {
    return metric.higher_is_better ? a.mean > b.mean : a.mean < b.mean;
  });
  return list;
}

// The target at which the most pairs are decided; of equals the one nearest to the middle.
size_t telling_target(const Table& table) {
  std::vector<int64_t> decided(table.targets.size(), 0);
  for (const PairSummary& pair : table.comparison.pairs) {
    if (pair.target && pair.better_bh != 0) ++decided[*pair.target];
  }
  size_t best = table.targets.size() / 2;
  for (size_t t = 0; t < decided.size(); ++t) {
    if (decided[t] > decided[best]) best = t;
  }
  return best;
}

const PairSummary* pair_of(const Table& table, size_t a, size_t b, size_t target) {
  for (const PairSummary& pair : table.comparison.pairs) {
    const bool same = (pair.first == a && pair.second == b) || (pair.first == b && pair.second == a);
    if (same && pair.target && *pair.target == target) return &pair;
  }
  return nullptr;
}

// How many documents like these would tell the best two apart: a detectable difference shrinks with their root.
std::string needed_text(const Table& table, const std::vector<Standing>& order, size_t target) {
  if (order.size() < 2) return "";
  const PairSummary* const pair = pair_of(table, order[0].row, order[1].row, target);
  if (pair == nullptr || pair->better_bh != 0) return "";
  const std::string next = table.rows[order[1].row].label();
  const double difference = std::abs(pair->pair.difference.mean);
  if (difference < 1e-12) return fmt::format(" It has the same mean as {}.", next);
  if (!pair->pair.p)
    return fmt::format(" {} {} too few to compare it with {}.", count(pair->pair.difference.n_documents, "document"),
                       pair->pair.difference.n_documents == 1 ? "is" : "are", next);
  if (!pair->detectable) return fmt::format(" The data cannot tell it from {}.", next);
  const double ratio = *pair->detectable / difference;
  const double documents = std::ceil(static_cast<double>(pair->pair.difference.n_documents) * ratio * ratio);
  if (documents > 1e5)
    return fmt::format(
        " The data cannot tell it from {}: they are {:.2g} apart, too little for any feasible number of "
        "documents.",
        next, difference);
  return fmt::format(
      " The data cannot tell it from {}: they are {:.2g} apart, which about {:.0f} documents would decide; this run "
      "has "
      "{}.",
      next, difference, documents, pair->pair.difference.n_documents);
}

std::string table_text(const Table& table, const MetricInfo& metric, bool with_model) {
  const size_t target = telling_target(table);
  const std::vector<Standing> order = standings(table, target, metric);
  if (order.empty()) return "";
  int64_t beaten = 0, decided = 0, n_pairs = 0;
  for (const PairSummary& pair : table.comparison.pairs) {
    if (!pair.target || *pair.target != target) continue;
    ++n_pairs;
    decided += pair.better_bh != 0 ? 1 : 0;
    const bool first_won = pair.better_bh > 0 && pair.first == order[0].row;
    beaten += first_won || (pair.better_bh < 0 && pair.second == order[0].row) ? 1 : 0;
  }
  const Row& best = table.rows[order[0].row];
  std::string text = fmt::format("{}{}, {} at {}: ", with_model ? table.model_label + ": " : "", table.dataset_label,
                                 table.task_label, target_text(table.targets[target]));
  const std::string value = estimate_text(measured_at(best, target)->metrics.front());
  if (n_pairs == 0) return text + fmt::format("{} has {} {}.", best.label(), metric.name, value);
  if (beaten > 0) {
    text += fmt::format("{} ({} {}) is decidedly better than {} of {}.", best.label(), metric.name, value, beaten,
                        count(std::ssize(order) - 1, "other method"));
  } else if (decided > 0) {
    text += fmt::format("{} of {} {} decided; the best mean is {}'s ({} {}).", decided, count(n_pairs, "pair"),
                        decided == 1 ? "is" : "are", best.label(), metric.name, value);
  } else {
    text +=
        fmt::format("no pair of methods is decided; the best mean is {}'s ({} {}).", best.label(), metric.name, value);
  }
  if (const int64_t n = measured_at(best, target)->metrics.front().estimate.n_documents;
      decided > 0 && n < kFewDocuments)
    text += fmt::format(" That speaks of {} only.", n == 1 ? "this document" : fmt::format("these {} documents", n));
  return text + needed_text(table, order, target);
}

}  // namespace

std::vector<std::string> conclusions(const Tabulated& tabulated, size_t n_tables) {
  bool with_model = false;
  for (const Table& table : tabulated.tables)
    with_model = with_model || table.model_label != tabulated.tables.front().model_label;
  std::vector<std::string> lines;
  int64_t left_out = 0;
  for (const Table& table : tabulated.tables) {
    const auto& metrics = metrics_of_task(table.task.is_object() ? table.task.value("name", "") : "");
    if (metrics.empty() || table.targets.empty()) continue;
    std::string text = table_text(table, metrics.front(), with_model);
    if (text.empty()) continue;
    if (lines.size() < n_tables) {
      lines.push_back(std::move(text));
    } else {
      ++left_out;
    }
  }
  if (left_out > 0) lines.push_back(fmt::format("{} more in the report.", count(left_out, "table")));
  return lines;
}

}  // namespace kvc
