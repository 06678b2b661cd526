#include "harness/report/document_loss.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "harness/report/metric.h"

namespace kvc {
namespace {

// Place of a metric among the task's; -1: it has none of this name.
std::ptrdiff_t place_of(const std::string& metric, const std::string& task) {
  const std::vector<MetricInfo>& metrics = metrics_of_task(task);
  const auto found =
      std::find_if(metrics.begin(), metrics.end(), [&](const MetricInfo& info) { return info.name == metric; });
  return found == metrics.end() ? -1 : found - metrics.begin();
}

std::string task_of(const Record& record) {
  return record.cell.contains("task") ? record.cell.at("task").value("name", "") : "";
}

double clipped_kl(double kl, double bound) {
  return std::clamp(kl, 0.0, bound) / bound;  // round-off may make a KL of nothing slightly negative
}

}  // namespace

const std::vector<std::string>& loss_metrics() {
  static const std::vector<std::string> list = {"accuracy", "agreement", "kl"};
  return list;
}

bool has_loss(const std::string& metric, const std::string& task) {
  if (metric == "accuracy") return place_of("accuracy", task) >= 0;
  if (metric == "agreement") return place_of("top_agreement", task) >= 0;
  return metric == "kl" && place_of("kl", task) >= 0;
}

double most_right(const LossSettings& settings, const Json& task, int64_t n_questions) {
  const double tokens = settings.metric == "agreement" ? task.value("max_new_tokens", 1.0) : 1;
  return static_cast<double>(n_questions) * tokens;
}

DocumentScore document_score(const LossSettings& settings, const Record& record) {
  DocumentScore score;
  const std::string task = task_of(record);
  const std::ptrdiff_t place = place_of(settings.metric == "agreement" ? "top_agreement" : settings.metric, task);
  const std::vector<QuestionValues> values = question_values(record);
  for (const QuestionValues& question : values) {
    const double value = question.values.at(static_cast<size_t>(place));
    if (std::isnan(value)) continue;
    if (settings.metric == "accuracy") score.questions.emplace_back(question.question_id, value);
    if (settings.metric == "kl") {
      score.loss.right += 1;
      score.loss.lost += clipped_kl(value, settings.kl_bound);
    }
  }
  if (settings.metric == "agreement") {
    const std::string where = fmt::format("record of cell {}, document '{}'", record.cell_id, record.document_id);
    for (size_t i = 0; i < record.answers.size(); ++i) {
      const AnswerFields answer(record.answers, i, where);
      const auto n = static_cast<double>(answer.integer("n_tokens", 0));
      score.loss.right += n;
      score.loss.lost += n - answer.number("top_agreement");
    }
  }
  return score;
}

DocumentLoss document_loss(const LossSettings& settings, const DocumentScore& method, const DocumentScore& full) {
  if (settings.metric != "accuracy") return method.loss;
  const std::map<std::string, double> own(method.questions.begin(), method.questions.end());
  DocumentLoss loss;
  for (const auto& [question, value] : full.questions) {
    const auto found = own.find(question);
    loss.right += value;
    loss.lost += std::max(0.0, value - (found == own.end() ? 0 : found->second));
  }
  return loss;
}

}  // namespace kvc
