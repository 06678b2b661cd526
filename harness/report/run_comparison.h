// Two runs of the same sweep, question by question: what got better, worse, flipped, and which settings differ.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/report/paired.h"
#include "harness/report/tabulate.h"

namespace kvc {

// One cell that both runs have, on the questions that both answered, by the task's primary metric.
struct CellChange {
  std::string dataset, task, method, target;  // labels of the first run
  MetricInfo metric;
  double before = 0, after = 0;  // means over the shared questions
  Pair pair;                     // after - before
  double p_holm = 1;             // over all cells of the comparison
  int better = 0;                // 1 the second run, -1 the first, 0 undecided at 5 %
  // How much is lost: share points for shares, else relative to `before`; negative: a gain.
  double loss() const;
};

struct RunComparison {
  std::vector<CellChange> cells;           // what is decided first, then by p
  std::vector<std::string> only_in_first;  // cells without a counterpart
  std::vector<std::string> only_in_second;
  std::vector<std::string> settings;  // "threads: 2 -> 1", of provenance and of the plug-ins' options
  int64_t asked_otherwise = 0;        // answers left out: the runs have two right answers under one question id
};

// Cells are paired by model, data set, task, method and target as they were understood; questions by document, id and
// right answer, each as the mean over its seeds. A document whose right answers depend on the seed (needles) is another
// one under each seed, as in the tables.
RunComparison compare_runs(const Tabulated& first, const Tabulated& second);

// At most `width` columns wide.
std::string comparison_text(const RunComparison& comparison, const std::string& first, const std::string& second,
                            size_t width);

// Cells that are decidedly worse and lose more than `tolerance` (0.01: a share point, or 1 % of another metric).
std::vector<const CellChange*> worse_cells(const RunComparison& comparison, double tolerance);

}  // namespace kvc
