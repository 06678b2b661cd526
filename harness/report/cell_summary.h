// The records of one (row, target) -> its sizes, seconds and metrics, beside full cache and floor.
#pragma once

#include <span>

#include "harness/report/grouped_records.h"
#include "harness/report/tabulate.h"

namespace kvc {

// `cell` is one of `table`'s, or one without records.
CellSummary summarize(const CellRecords& cell, const TableRecords& table, const ComparisonSettings& settings);

// A size or a time of a cell, as report.json, report.csv and the table of sizes show it, in their order: a new one is a
// member of CellSummary and an entry of cell_quantities().
struct CellQuantity {
  const char* part;  // "sizes" or "seconds" of a cell in report.json; null: only in the table
  const char* name;  // there, and in report.csv
  std::optional<double> (*value)(const CellSummary& cell);
  bool in_csv;
  const char* header;                            // of its column in the table; null: none
  std::string (*text)(const CellSummary& cell);  // what stands there
};
std::span<const CellQuantity> cell_quantities();

}  // namespace kvc
