// What the Markdown and the terminal report have in common.
#pragma once

#include "harness/report/tabulate.h"
#include "harness/report/text_table.h"

namespace kvc {

int64_t most_questions(const Table& table);                 // of any cell
TextTable metric_table(const Table& table, size_t metric);  // mean and interval by row and target; n where it differs
std::string interval_note(const Table& table, size_t metric);   // which kinds of interval stand in metric_table
TextTable retained_table(const Table& table, size_t metric);    // no rows when there is nothing to show
std::string retained_note(const Table& table, size_t metric);   // "" where retained_table has no rows
TextTable size_table(const std::vector<const Table*>& tables);  // of one model and data set
TextTable stage_table(const std::vector<StageCost>& stages);

// Metrics that say whether an answer could be judged, not how good it is: parse_rate, length_limit_rate.
bool is_answer_check(const MetricInfo& metric);
// By row and target: answers that could not be read, answers cut off by the length limit, each of all. No rows for a
// task without such metrics.
TextTable answers_table(const Table& table);

// On the primary metric (comparison.h); no rows where there are fewer than 2 methods to compare.
TextTable rank_table(const Table& table);         // ranges of ranks by target, the area under the curve and its rank
TextTable versus_best_table(const Table& table);  // every method against the best mean at each target
std::string comparison_note(const Table& table);  // how many pairs are decided, what could have been seen

}  // namespace kvc
