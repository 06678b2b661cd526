#include "harness/explain/asker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "harness/core/error.h"
#include "harness/model/continuation.h"
#include "harness/sweep/document_run.h"
#include "harness/tasks/judging/judge.h"

namespace kvc {
namespace {

std::string text_in(const Json& answer, const char* name) {
  const auto found = answer.find(name);
  return found != answer.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// Of an answer that holds the question asked in several orders or several times, the first in which two caches differ.
std::pair<const Json*, const Json*> differing_parts(const Json& a, const Json& b) {
  for (const char* name : {"rotations", "samples"}) {
    if (!a.contains(name) || !b.contains(name)) continue;
    for (size_t i = 0; i < std::min(a.at(name).size(), b.at(name).size()); ++i) {
      if (text_in(a.at(name)[i], "text") != text_in(b.at(name)[i], "text")) return {&a.at(name)[i], &b.at(name)[i]};
    }
  }
  return {&a, &b};
}

// As the chat template wrote it: the spelling of a special token means that token.
std::vector<int64_t> encode(const Model& model, const std::string& prompt, const std::string& reply) {
  return model.tokenizer().encode({{prompt, true}, {reply, false}});
}

bool has_scores(const Json& answer) {
  return answer.contains("option_log_likelihood") && answer.contains("option_tokens");
}

// The right options' best score per token less the best of the others.
std::optional<double> option_margin(const Json& answer) {
  const auto& scores = answer.at("option_log_likelihood");
  std::vector<int64_t> right = answer.value("right_options", std::vector<int64_t>());
  right.push_back(answer.value("gold_option", int64_t{-1}));
  double best_right = -INFINITY, best_other = -INFINITY;
  for (size_t i = 0; i < scores.size(); ++i) {
    const double score = scores[i].get<double>() / answer.at("option_tokens")[i].get<double>();
    const bool is_right = std::find(right.begin(), right.end(), static_cast<int64_t>(i)) != right.end();
    double& best = is_right ? best_right : best_other;
    best = std::max(best, score);
  }
  const double margin = best_right - best_other;
  return std::isfinite(margin) ? std::optional(margin) : std::nullopt;
}

}  // namespace

Asker::Asker(const Model& model, const Task& task, std::string task_name, const Question& question, const KvCache& full,
             std::uint64_t seed)
    : model_(model), task_(task), task_name_(std::move(task_name)), questions_{question}, seed_(seed) {
  const TaskMetrics* metrics = find_task_metrics(task_name_);
  if (metrics == nullptr || metrics->metrics.empty() || !metrics->metrics.front().share) {
    throw Error(ErrorKind::kUsage, fmt::format("task '{}' does not tell right answers from wrong ones", task_name_), "",
                "explain questions of another task");
  }
  reference_ = task.reference({model, full, questions_, seed});
}

Reply Asker::ask(const KvCache& cache) {
  ++n_asked_;
  std::vector<Json> answers = task_.ask({model_, cache, questions_, seed_, reference_.get()});
  complete_answers(questions_, answers);
  const std::string where = "question " + questions_.front().id;
  const std::vector<double> values = find_task_metrics(task_name_)->judge(fields_of(answers, where)).front();
  Reply reply{std::move(answers.front()), values.empty() ? 0 : values.front()};
  return reply;
}

std::string reply_text(const Question& question, const Json& answer) {
  if (has_scores(answer)) {
    const auto& scores = answer.at("option_log_likelihood");
    size_t best = 0;
    const auto score = [&](size_t i) { return scores[i].get<double>() / answer.at("option_tokens")[i].get<double>(); };
    for (size_t i = 1; i < scores.size(); ++i) {
      if (score(i) > score(best)) best = i;
    }
    return best < question.options.size() ? question.options[best] : "";
  }
  for (const char* name : {"rotations", "samples"}) {
    if (!answer.contains(name)) continue;
    std::string all;
    for (const Json& one : answer.at(name)) all += (all.empty() ? "" : "\n") + text_in(one, "text");
    return all;
  }
  return text_in(answer, "text");
}

ReadText read_text(const Model& model, const Question& question, const Json& answer) {
  const Json& one = answer.contains("rotations") ? answer.at("rotations").front() : answer;
  const std::string prompt = text_in(one, "rendered_prompt");
  std::string reply = text_in(one, "text");
  if (has_scores(answer) && question.gold_option)
    reply = question.options.at(static_cast<size_t>(*question.gold_option));
  ReadText read{encode(model, prompt, reply), 0};
  read.n_prompt = static_cast<int64_t>(encode(model, prompt, "").size());
  return read;
}

AnswerMargin::AnswerMargin(const Model& model, const Question& /*question*/, const Json& full, const Json& compact)
    : model_(model) {
  if (has_scores(full)) return;
  const auto [a, b] = differing_parts(full, compact);
  const std::string prompt = text_in(*a, "rendered_prompt");
  if (prompt.empty() || prompt != text_in(*b, "rendered_prompt")) return;
  std::vector<int64_t> first = encode(model, prompt, text_in(*a, "text"));
  std::vector<int64_t> second = encode(model, prompt, text_in(*b, "text"));
  // A reply that ends where the other one goes on: the end is what was preferred.
  if (const std::vector<int64_t> ends = model.tokenizer().end_ids(); !ends.empty()) {
    first.push_back(ends.front());
    second.push_back(ends.front());
  }
  const auto parted = std::mismatch(first.begin(), first.end(), second.begin(), second.end());
  if (parted.first == first.end() || parted.second == second.end() || parted.first == first.begin()) return;
  read_.assign(first.begin(), parted.first);
  full_token_ = *parted.first;
  compact_token_ = *parted.second;
}

std::optional<double> AnswerMargin::on(const KvCache& cache, const Json& answer) const {
  if (has_scores(answer)) return option_margin(answer);
  if (read_.empty()) return std::nullopt;
  const std::vector<double> scores =
      continuation_log_likelihoods(model_, cache, {read_}, {{0, {full_token_}}, {0, {compact_token_}}});
  return scores[0] - scores[1];
}

}  // namespace kvc
