// The records of one (row, target) -> its sizes, seconds and metrics, beside full cache and floor.
#pragma once

#include "harness/report/grouped_records.h"
#include "harness/report/tabulate.h"

namespace kvc {

// `cell` is one of `table`'s, or one without records.
CellSummary summarize(const CellRecords& cell, const TableRecords& table, const ComparisonSettings& settings);

}  // namespace kvc
