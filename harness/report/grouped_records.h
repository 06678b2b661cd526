// Records brought together by table, row and target, and judged: what tabulate() makes summaries of.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "harness/report/metric.h"
#include "harness/report/tabulate.h"

namespace kvc {

struct JudgedRecord {
  const Record* record = nullptr;
  bool failed = false;  // or not to be judged
  std::string error;
};

// All records of one (row, target).
struct CellRecords {
  Json target;
  std::set<std::string> cell_ids;
  std::vector<JudgedRecord> records;
  std::vector<ScoredQuestion> answers;    // by document, seed, question
  std::vector<ScoredQuestion> questions;  // by document, question: means over seeds
};

struct RowRecords {
  Json method, queries;
  bool question_aware = false;
  std::map<std::string, CellRecords> cells;  // by canonical target
};

struct TableRecords {
  Json model, dataset, task;
  std::map<std::string, RowRecords> rows;                   // by canonical (method, queries)
  std::set<std::pair<std::string, std::string>> documents;  // with seed
  std::set<std::string> of_seed;                            // whose right answers depend on it: another under each
  std::map<std::string, Json> targets;
  std::vector<Json> parts;  // the data sets that it has together (together.h); empty: it is of one
};

// Tables by canonical model, data set and task. `records` must be sorted by cell id and document, and outlive the
// result.
std::vector<TableRecords> group_records(const std::vector<Record>& records);

// A part of a record's cell ("method", "seed"); null where it has none.
Json cell_part(const Record& record, const char* name);
std::string seed_text(const Record& record);
// "needle_1 (seed 8)": a document whose right answers depend on the seed is another one under each.
std::string document_under(const std::string& document, const std::string& seed);
std::optional<double> number_in(const Json& object, const char* name);

}  // namespace kvc
