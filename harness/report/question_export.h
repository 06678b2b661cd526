// One row a question and cell, with what was asked and answered: for pandas, R, DuckDB.
#pragma once

#include <string>

#include "harness/report/report.h"

namespace kvc {

// Columns: model, dataset, task, method, queries, target, seed, document_id, question_id, kept_fraction,
// compaction_ratio, bytes_after, depth_fraction, prompt, gold, answer, then every metric of any task in the report.
// What a row does not have is empty in CSV, absent in JSON lines.
std::string questions_csv(const LoadedReport& loaded);
std::string questions_jsonl(const LoadedReport& loaded);

}  // namespace kvc
