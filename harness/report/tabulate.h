// Records -> tables of summaries: grouped, judged, aggregated and ordered; nothing is formatted here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "harness/report/comparison.h"
#include "harness/report/metric.h"
#include "harness/report/retained.h"
#include "harness/report/statistics.h"
#include "harness/sweep/record.h"

namespace kvc {

// What one question of one cell is worth: one answer, or the mean of the answers under all seeds (`seed` is then
// empty).
struct ScoredQuestion {
  std::string document, seed, question;
  std::vector<double> values;  // as metrics_of_task
  std::optional<double> depth_fraction, context_tokens;
  size_t gold = 0;  // hash of the right answer within this process; 0: none, or means over several
  auto key() const { return std::tie(document, seed, question); }
};

// One metric in one cell.
struct MetricSummary {
  MetricInfo info;
  Estimate estimate;
  std::optional<VersusFull> versus_full;  // each question against the same question of full_cache
  // (m - floor) / (full - floor) on the same questions; only for shares, and only where full cache and floor can be
  // told apart
  std::optional<Retained> retained;
};

// Sums or means over documents; a size that no record has is not there.
struct SizeSummary {
  std::optional<double> kept_fraction;                                     // sum of kept / sum of compactable entries
  std::optional<double> compaction_ratio;                                  // its inverse
  std::optional<double> bytes_before, bytes_after, allocated_bytes_after;  // mean per document
  std::optional<double> bytes_ratio;                                       // sum before / sum after
  std::optional<double> head_len_min, head_len_mean, head_len_max;         // least, mean, largest
};

struct CellSummary {
  Json target;  // as asked; null where the method takes none
  std::vector<std::string> cell_ids;
  int64_t n_done = 0;     // documents (times seeds)
  int64_t n_failed = 0;   // failed, or not to be judged
  int64_t n_missing = 0;  // that other cells of the table have
  std::string first_error;
  // What stopped.json says where a rule (stop_when) left the cell before the last document; null elsewhere. Its means
  // have no intervals and no tests then; {low, high} of this is the interval that holds.
  Json stopped;
  std::vector<MetricSummary> metrics;   // as metrics_of_task
  std::vector<ScoredQuestion> answers;  // by document, seed, question
  // By document, question: means over seeds; all statistics are of these. A document whose right answers depend on the
  // seed (needles) is another document under each: "needle_1 (seed 8)".
  std::vector<ScoredQuestion> questions;
  SizeSummary sizes;
  // Task head_errors: {output_relative, cosine, mass_relative, bias_at_bound}, each a list of layers of lists of KV
  // heads, means over documents; null elsewhere.
  Json heads;
  std::optional<double> compaction_shared_s, compaction_s;  // mean per document
};

enum class Role : std::uint8_t { kCeiling, kMethod, kFloor };

struct Row {
  Role role = Role::kMethod;
  Json method, queries;  // {name, options...}; queries may be null
  std::string method_label, queries_label;
  std::vector<std::optional<CellSummary>> cells;  // one per target of the table
  std::optional<CellSummary> untargeted;          // of a method that takes no target
  // Compacted knowing the questions, each question's cache for itself: shown, but not ranked with methods that did not.
  bool question_aware = false;

  bool ranked() const { return role == Role::kMethod && !question_aware; }
  // The cell without target first, then those there are by target.
  std::vector<const CellSummary*> measured() const;
  std::string label() const { return queries_label.empty() ? method_label : method_label + ", " + queries_label; }
};

struct Table {
  Json model, dataset, task;
  std::string model_label, dataset_label, task_label;
  std::vector<std::string> documents;  // one that depends on the seed under each: "needle_1 (seed 8)"
  std::vector<Json> targets;           // fractions from large to small, then numbers of entries from large to small
  std::vector<Row> rows;               // ceiling, methods by label, floor
  Comparison comparison;               // of the methods, on the primary metric
  // The names of the data sets that it has together (together.h), with "task: " before its documents' names; empty: it
  // is of one data set. Its cells have no answers and no ids: these are in the tables of its parts.
  std::vector<std::string> parts;
};

// Seconds per document of one model and data set for its whole grid; what several cells share is counted once per
// document.
struct StageCost {
  std::string model_label, dataset_label;
  int64_t n_documents = 0;                                                            // documents times seeds
  double prefill_s = 0, queries_s = 0, compaction_s = 0, reference_s = 0, ask_s = 0;  // mean per document
  std::vector<std::pair<std::string, double>>
      parts;  // "queries repeat_prefill", "compaction snapkv", "ask likelihood": the same, split
  double total_s() const { return prefill_s + queries_s + compaction_s + reference_s + ask_s; }
};

struct Failure {
  std::string cell_id, label, document_id, error;
};

struct Tabulated {
  std::vector<Table> tables;  // by model, data set, task; before the first part of a benchmark its tables of all parts
  std::vector<StageCost> stages;
  std::vector<Failure> failures;
  std::vector<std::string> warnings;
  std::vector<Json> provenance;  // distinct {kvc_version, model, hardware...} without times
  int64_t n_records = 0, n_done = 0, n_failed = 0, n_missing = 0;
  int64_t n_stopped = 0;  // cells that a rule left early
  // Answers of full caches that others are compared with, and how many of them came from an earlier run or sweep.
  int64_t n_references = 0, n_references_kept = 0;
};

// `defaults` is {"method": {NAME: {OPTION: VALUE}}, "queries": ..., "dataset": ..., "task": ...}, or null: a label
// shows the options that differ from them, and those that vary between plug-ins of one name. The order of `records`
// does not matter.
Tabulated tabulate(std::vector<Record> records, const Json& defaults = nullptr,
                   const ComparisonSettings& settings = {});

// 0.05 -> "0.05", "512 entries" as it is.
std::string target_text(const Json& target);

}  // namespace kvc
