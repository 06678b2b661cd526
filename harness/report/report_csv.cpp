// report.csv and report_pairs.csv: the tables for spreadsheets and statistics programs; and the score of every single
// question.
#include <fmt/format.h>

#include <cmath>

#include "harness/report/cell_summary.h"
#include "harness/report/csv_line.h"
#include "harness/report/report.h"

namespace kvc {
namespace {

using Line = CsvLine;

void add_metric(const MetricSummary& metric, Line& line) {
  const Estimate& e = metric.estimate;
  line.add(metric.info.name).add(e.n_questions).add(e.n_documents).add(e.mean).add_range(e.interval);
  line.add(std::string(interval_name(e.interval.kind))).add_range(e.bootstrap).add_range(e.questions);
  line.add(e.mean_of_documents);
  if (metric.versus_full) {
    const VersusFull& versus = *metric.versus_full;
    line.add(versus.pair.difference.mean).add_range(versus.pair.difference.interval);
    line.add(versus.pair.p).add(versus.p_equivalence);
  } else {
    line.skip(5);
  }
  if (!metric.retained) {
    line.skip(5);
    return;
  }
  const RatioInterval& questions = metric.retained->questions;
  line.add(metric.retained->value).add_range(true, metric.retained->interval.low, metric.retained->interval.high);
  line.add_range(questions.computed && !questions.unbounded, questions.low, questions.high);
}

constexpr const char* kCellHeader =
    "model,dataset,task,method,queries,target,n_done,n_failed,n_missing,metric,n_questions,n_documents,mean,low,high,"
    "interval,bootstrap_low,bootstrap_high,questions_low,questions_high,mean_of_documents,difference_to_full,"
    "difference_low,difference_high,p_full,p_equivalence,retained,retained_low,retained_high,retained_questions_low,"
    "retained_questions_high";
constexpr size_t kMetricFields = 22;  // metric .. retained_questions_high

void csv_cell(const Table& table, const Row& row, const CellSummary& cell, std::string& csv) {
  const auto write = [&](const MetricSummary* metric) {
    Line line;
    line.add(table.model_label).add(table.dataset_label).add(table.task_label).add(row.method_label);
    line.add(row.queries_label).add(target_text(cell.target));
    line.add(cell.n_done).add(cell.n_failed).add(cell.n_missing);
    if (metric != nullptr && metric->estimate.n_questions > 0) {
      add_metric(*metric, line);
    } else {
      line.skip(kMetricFields);
    }
    for (const CellQuantity& quantity : cell_quantities()) {
      if (quantity.in_csv) line.add(quantity.value(cell));
    }
    csv += line.text();
  };
  if (cell.n_done == 0 || cell.metrics.empty()) return write(nullptr);
  for (const MetricSummary& metric : cell.metrics) {
    if (&metric == &cell.metrics.front() || metric.estimate.n_questions > 0) write(&metric);
  }
}

void csv_pair(const Table& table, const PairSummary& summary, std::string& csv) {
  const Row& first = table.rows[summary.first];
  const Row& second = table.rows[summary.second];
  const Pair& pair = summary.pair;
  Line line;
  line.add(table.model_label).add(table.dataset_label).add(table.task_label);
  line.add(summary.target ? target_text(table.targets[*summary.target]) : "area");
  line.add(first.label()).add(second.label()).add(pair.wins).add(pair.losses).add(pair.ties);
  line.add(pair.difference.mean).add_range(pair.difference.interval).add_range(pair.difference.bootstrap);
  line.add(pair.ratio).add_range(pair.ratio_interval);
  line.add(pair.p_mcnemar)
      .add(pair.p_sign_flip)
      .add(pair.p_documents)
      .add(std::string(test_name(pair.test)))
      .add(pair.p);
  line.add(summary.p_holm).add(summary.p_bh).add(summary.p_equivalence);
  line.add(summary.detectable).add(summary.detectable_corrected);
  const auto word = [](int better) { return std::string(better == 0 ? "undecided" : better > 0 ? "first" : "second"); };
  csv += line.add(word(summary.better)).add(word(summary.better_bh)).text();
}

void score_cell(const Table& table, const Row& row, const CellSummary& cell, std::string& lines) {
  for (const ScoredQuestion& question : cell.answers) {
    Json values = Json::object();
    for (size_t i = 0; i < question.values.size(); ++i) {
      if (!std::isnan(question.values[i])) values[cell.metrics[i].info.name] = question.values[i];
    }
    Json line = Json{{"model", table.model_label},         {"dataset", table.dataset_label},
                     {"task", table.task_label},           {"method", row.method_label},
                     {"queries", row.queries_label},       {"target", cell.target},
                     {"seed", Json::parse(question.seed)}, {"document_id", question.document},
                     {"question_id", question.question},   {"values", values}};
    if (question.depth_fraction) line["depth_fraction"] = *question.depth_fraction;
    lines += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
}

void for_cells(const Tabulated& tabulated, const auto& visit) {
  for (const Table& table : tabulated.tables) {
    for (const Row& row : table.rows) {
      if (row.untargeted) visit(table, row, *row.untargeted);
      for (const auto& cell : row.cells) {
        if (cell) visit(table, row, *cell);
      }
    }
  }
}

}  // namespace

std::string report_csv(const Tabulated& tabulated) {
  std::string csv = kCellHeader;
  for (const CellQuantity& quantity : cell_quantities()) {
    if (quantity.in_csv) csv += std::string(",") + quantity.name;
  }
  csv += "\n";
  for_cells(tabulated, [&](const Table& t, const Row& r, const CellSummary& c) { csv_cell(t, r, c, csv); });
  return csv;
}

std::string report_pairs_csv(const Tabulated& tabulated) {
  std::string csv =
      "model,dataset,task,target,first,second,wins,losses,ties,difference,low,high,bootstrap_low,bootstrap_high,"
      "ratio,ratio_low,ratio_high,p_mcnemar,p_sign_flip,p_documents,test,p,p_holm,p_bh,p_equivalence,detectable,"
      "detectable_corrected,better,better_bh\n";
  for (const Table& table : tabulated.tables) {
    for (const PairSummary& pair : table.comparison.pairs) csv_pair(table, pair, csv);
  }
  return csv;
}

std::string score_lines(const Tabulated& tabulated) {
  std::string lines;
  for_cells(tabulated, [&](const Table& t, const Row& r, const CellSummary& c) { score_cell(t, r, c, lines); });
  return lines;
}

}  // namespace kvc
