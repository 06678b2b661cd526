// `kvc table`: one metric by any two of method, target, model, data set, task and folder, for a paper, a page or a
// spreadsheet.
#pragma once

#include <string>
#include <vector>

#include "harness/report/report.h"

namespace kvc {

struct ValueTableOptions {
  std::string rows = "method", columns = "target";  // method, target, model, dataset, task, metric, folder
  std::string metric;                               // empty: each task's primary metric
  std::string dataset, task;                        // label or name; empty: all
  std::string format = "md";                        // md, csv, tsv, latex, json
  bool transpose = false;
  bool best = false;      // marks the best of a column and what is not decidedly worse
  bool sort = false;      // best rows first, by their mean over columns, within a data set, task...
  bool intervals = true;  // csv, tsv: columns of their own; md, latex: left out where the table is wider than `width`
  size_t width = 80;
};

// What varies and is neither among the rows nor the columns stands in columns of its own before the row's name. Throws
// Error(kUsage) for an unknown axis, format or metric.
std::string value_table(const std::vector<LoadedReport>& folders, const ValueTableOptions& options);

}  // namespace kvc
