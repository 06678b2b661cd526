#include "harness/report/metric.h"

#include <fmt/format.h>

namespace kvc {
namespace {

// The question's own, which data sets may leave out.
std::optional<double> depth_fraction(const Json& answer) {
  if (!answer.contains("extra") || !answer.at("extra").is_object()) return std::nullopt;
  const Json depth = answer.at("extra").value("depth_fraction", Json());
  if (!depth.is_number()) return std::nullopt;
  const double value = depth.get<double>();
  return value >= 0 && value <= 1 ? std::optional(value) : std::nullopt;
}

}  // namespace

const std::vector<MetricInfo>& metrics_of_task(const std::string& task) {
  static const std::vector<MetricInfo> none;
  const TaskMetrics* found = find_task_metrics(task);
  return found == nullptr ? none : found->metrics;
}

std::vector<QuestionValues> question_values(const Record& record) {
  std::vector<QuestionValues> list;
  const std::string where = fmt::format("record of cell {}, document '{}'", record.cell_id, record.document_id);
  const Json task = record.cell.is_object() ? record.cell.value("task", Json()) : Json();
  if (!task.is_object() || !task.contains("name") || !task.at("name").is_string()) {
    throw Error(ErrorKind::kData, "field 'cell.task.name' is missing", where,
                "delete the record's line and run the sweep again");
  }
  const TaskMetrics* task_metrics = find_task_metrics(task.at("name").get<std::string>());
  if (task_metrics == nullptr) return list;
  for (size_t i = 0; i < record.answers.size(); ++i) {
    const AnswerFields answer(record.answers, i, where);
    QuestionValues values{answer.text("question_id"), task_metrics->judge(answer), depth_fraction(record.answers[i])};
    if (!values.values.empty()) list.push_back(std::move(values));
  }
  return list;
}

}  // namespace kvc
