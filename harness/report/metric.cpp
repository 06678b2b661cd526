#include "harness/report/metric.h"

#include <fmt/format.h>

#include <functional>

namespace kvc {
namespace {

// The question's own, which data sets may leave out.
std::optional<double> depth_fraction(const Json& answer) {
  if (!answer.contains("extra") || !answer.at("extra").is_object()) return std::nullopt;
  const Json& extra = answer.at("extra");
  const auto depth = extra.find("depth_fraction");
  if (depth == extra.end() || !depth->is_number()) return std::nullopt;
  const double value = depth->get<double>();
  return value >= 0 && value <= 1 ? std::optional(value) : std::nullopt;
}

size_t gold_of(const Json& answer) {
  const auto gold = answer.find("gold_answer");
  if (gold == answer.end() || !gold->is_string()) return 0;
  const auto others = answer.find("other_answers");
  const std::string all = gold->get<std::string>() + (others == answer.end() ? "" : "\n" + others->dump());
  return std::hash<std::string>()(all);
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
  const std::vector<AnswerFields> answers = fields_of(record.answers, where);
  std::vector<std::vector<double>> values = task_metrics->judge(answers);
  list.reserve(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].empty()) continue;
    list.push_back({answers[i].text("question_id"), std::move(values[i]), depth_fraction(record.answers[i]),
                    gold_of(record.answers[i])});
  }
  return list;
}

}  // namespace kvc
