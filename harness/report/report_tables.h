// What the Markdown and the terminal report have in common.
#pragma once

#include "harness/report/tabulate.h"
#include "harness/report/text_table.h"

namespace kvc {

int64_t most_questions(const Table& table);                 // of any cell
TextTable metric_table(const Table& table, size_t metric);  // mean and interval by row and target; n where it differs
std::string interval_note(const Table& table, size_t metric);  // what the intervals of metric_table say
// Difference to the full cache with interval and p, "=" where equivalent; no rows for a metric whose full cache is 0 by
// definition (KL).
TextTable versus_full_table(const Table& table, size_t metric);
std::string versus_full_note(const Table& table, size_t metric);
TextTable by_document_table(const Table& table, size_t metric);  // means of the documents' means
TextTable retained_table(const Table& table, size_t metric);     // no rows when there is nothing to show
std::string retained_note(const Table& table, size_t metric);    // "" where retained_table has no rows
TextTable size_table(const std::vector<const Table*>& tables);   // of one model and data set
TextTable stage_table(const std::vector<StageCost>& stages);

// Metrics that say whether an answer could be judged, not how good it is: parse_rate, length_limit_rate.
bool is_answer_check(const MetricInfo& metric);
// By row and target: answers that could not be read, answers cut off by the length limit, each of all. No rows for a
// task without such metrics.
TextTable answers_table(const Table& table);

// On the primary metric (comparison.h); no rows where there are fewer than 2 methods to compare.
TextTable rank_table(const Table& table);              // area under the curve and ranks, where any pair is decided
std::string rank_note(const Table& table);             // how many of all pairs are decided
TextTable versus_reference_table(const Table& table);  // every method against the reference at each target
std::string versus_reference_note(const Table& table);

// Cells that a rule left early: why, after how many documents, and the loss with its sequential interval; no rows where
// there are none.
TextTable stopped_table(const Table& table);
std::string stopped_note(const Table& table);   // "" where stopped_table has no rows
std::string stopped_text(const Json& stopped);  // "outside after 7 documents"

// "0.25 [0.09, 0.53]": two digits for shares, else three significant ones.
std::string estimate_text(double mean, const Interval& interval, bool share);
std::string p_text(double p);  // "p=0.16", "p<0.001"

}  // namespace kvc
