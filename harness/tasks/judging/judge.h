// How a task's answers are judged: the metrics that it registers beside itself, in its own file. Judging needs the
// stored answer alone, no model and no tensor, so a new metric or a better answer parser is a new report over old
// records.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/core/registry.h"

namespace kvc {

struct MetricInfo {
  std::string name;   // "accuracy"
  std::string title;  // what a column or axis is called: "accuracy (mean log-likelihood per token)"
  bool share;         // values are 0 or 1, or means of such over several askings of a question
  bool higher_is_better;
};

// Checked access to the fields of one stored answer, or of a part of it. Everything throws Error(kData) that names
// record, answer and field when the field is missing, of a wrong type, not finite or out of range.
class AnswerFields {
 public:
  // `answers`: all answers of one record; `where` names the record in errors. Both must outlive this.
  AnswerFields(const std::vector<Json>& answers, size_t index, const std::string& where)
      : AnswerFields(index, where, answers[index]) {}

  bool has(const char* name) const { return answer_.is_object() && answer_.contains(name); }
  const std::string& text(const char* name) const;
  double number(const char* name) const;
  int64_t integer(const char* name, int64_t least) const;
  bool flag(const char* name, bool missing) const;          // `missing`: the value where the field is not there
  int64_t count(const char* name) const;                    // length of a list, which may be empty
  std::vector<double> numbers(const char* name) const;      // of a list that is not empty
  std::vector<AnswerFields> parts(const char* name) const;  // likewise
  // Every right answer of a free question: "gold_answer", then the list "other_answers" where there is one.
  std::vector<std::string> right_answers() const;
  // The field "gold_option", an index below `n_options`.
  int64_t gold_option(size_t n_options) const;
  // The field "stop_reason": true for "length", false for "end", else an error.
  bool cut_by_length() const;

  [[noreturn]] void fail(const char* name, const std::string& fact) const;

 private:
  AnswerFields(size_t index, const std::string& where, const Json& answer)
      : index_(index), where_(where), answer_(answer) {}
  const Json& at(const char* name) const;
  double as_number(const Json& value, const char* name) const;

  size_t index_;
  const std::string& where_;
  const Json& answer_;
};

// Whether a share counts as a right answer: more right than wrong where the question was asked several times (seeds,
// orders of the options) or has several answers.
inline bool is_right(double share) {
  return share > 0.5;
}

struct TaskMetrics {
  std::vector<MetricInfo> metrics;  // the primary one first
  // Of all answers of a record, one value per metric each, in their order; NaN: this answer has none. An empty list:
  // the answer counts nowhere.
  std::vector<std::vector<double>> (*judge)(const std::vector<AnswerFields>& answers);
};

// Both arguments must outlive what is returned.
std::vector<AnswerFields> fields_of(const std::vector<Json>& answers, const std::string& where);

// For a task that judges every answer by itself: KVC_REGISTER_METRICS("fidelity", one_by_one<judge_fidelity>, ...).
template <std::vector<double> (*JudgeOne)(const AnswerFields&)>
std::vector<std::vector<double>> one_by_one(const std::vector<AnswerFields>& answers) {
  std::vector<std::vector<double>> values;
  values.reserve(answers.size());
  for (const AnswerFields& answer : answers) values.push_back(JudgeOne(answer));
  return values;
}

// nullptr for a task that registered none.
const TaskMetrics* find_task_metrics(const std::string& task);

// Throws Error(kInternal) for a second registration under one name.
bool register_task_metrics(const std::string& task, TaskMetrics metrics);

// One line at namespace scope, beside KVC_REGISTER_TASK:
//   KVC_REGISTER_METRICS("exact_match", judge, {{"accuracy", "accuracy", true, true}, ...});
#define KVC_REGISTER_METRICS(task, judge, ...)                           \
  [[maybe_unused]] static const bool KVC_JOIN(kMetricsOf, __COUNTER__) = \
      ::kvc::register_task_metrics(task, ::kvc::TaskMetrics{__VA_ARGS__, judge})

inline double is_true(bool value) {
  return value ? 1.0 : 0.0;
}

}  // namespace kvc
