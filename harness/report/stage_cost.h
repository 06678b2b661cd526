// Where the time of a grid went.
#pragma once

#include <vector>

#include "harness/report/label.h"
#include "harness/report/tabulate.h"

namespace kvc {

// One entry per (model, data set). A prefill is counted once per document and seed; queries once per source; the shared
// part of a compaction once per method and source, its own part once per target; questions once per cell. Where a
// resumed sweep measured a shared stage again, the mean of its records is taken.
std::vector<StageCost> stage_costs(const std::vector<Record>& records, const Labels& labels);

}  // namespace kvc
