// What the raw answers of a record are worth: one value per question and metric, then (statistics.h) a mean. Which
// metrics a task has and how an answer is judged stands in the task's file; the registry is asked by name.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "harness/sweep/record.h"
#include "harness/tasks/judging/judge.h"

namespace kvc {

// The metrics of a task, the primary one first; empty for a task that registered none.
const std::vector<MetricInfo>& metrics_of_task(const std::string& task);

struct QuestionValues {
  std::string question_id;
  std::vector<double> values;              // in the order of metrics_of_task; NaN: this answer has none
  std::optional<double> depth_fraction{};  // where in the document the answer stands, if extra.depth_fraction says so
  size_t gold = 0;  // hash of gold_answer and other_answers within this process; 0 where there is none
};

// One entry per answer of a "done" record, except those that the task counts nowhere; nothing for a task that
// registered no metrics. Throws Error(kData) naming record and field when a field is missing, of a wrong type, not
// finite or out of range.
std::vector<QuestionValues> question_values(const Record& record);

}  // namespace kvc
