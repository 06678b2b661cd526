#include "harness/explain/lost_answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "harness/core/count.h"
#include "harness/core/stable_hash.h"
#include "harness/tasks/judging/judge.h"

namespace kvc {
namespace {

std::string name_of(const Record& record, const char* part) {
  const Json plugin = record.cell.value(part, Json());
  return plugin.is_object() ? plugin.value("name", "") : "";
}

std::string target_of(const Record& record) {
  const Json target = record.cell.value("target", Json());
  return target.is_string() ? target.get<std::string>() : target.is_null() ? "" : target.dump();
}

// Cells whose answers compare: all but the method's part.
std::string setting_of(const Record& record) {
  Json setting = Json::object();
  for (const char* part : {"model", "dataset", "task", "seed"}) setting[part] = record.cell.value(part, Json());
  setting["document"] = record.document_id;
  return canonical_json(setting);
}

std::string question_of(const Json& answer) {
  return answer.is_object() ? answer.value("question_id", "") : "";
}

// Whether each answer of a record is right, by question; empty where the task's primary metric is no share.
std::map<std::string, std::pair<size_t, bool>> judged(const Record& record) {
  std::map<std::string, std::pair<size_t, bool>> list;
  const TaskMetrics* metrics = find_task_metrics(name_of(record, "task"));
  if (metrics == nullptr || metrics->metrics.empty() || !metrics->metrics.front().share) return list;
  const std::vector<std::vector<double>> values = metrics->judge(fields_of(record.answers, record.place));
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i].empty()) list[question_of(record.answers[i])] = {i, is_right(values[i].front())};
  }
  return list;
}

void refuse_unknown(const char* what, const std::string& wanted, const std::set<std::string>& known) {
  if (wanted.empty() || known.contains(wanted)) return;
  throw Error(ErrorKind::kUsage, fmt::format("no record has the {} '{}'", what, wanted), fmt::format("--{}", what),
              suggest_name(wanted, {known.begin(), known.end()}));
}

void check_filter(const std::vector<Record>& records, const LostAnswerFilter& filter) {
  std::set<std::string> questions, documents, methods, targets;
  for (const Record& record : records) {
    documents.insert(record.document_id);
    methods.insert(name_of(record, "method"));
    if (std::string target = target_of(record); !target.empty()) targets.insert(std::move(target));
    for (const Json& answer : record.answers) questions.insert(question_of(answer));
  }
  refuse_unknown("question", filter.question, questions);
  refuse_unknown("document", filter.document, documents);
  refuse_unknown("method", filter.method, methods);
  refuse_unknown("target", filter.target, targets);
}

class Finder {
 public:
  Finder(const std::vector<Record>& records, const LostAnswerFilter& filter) : filter_(filter) {
    for (const Record& record : records) {
      if (record.status == "done" && name_of(record, "method") == "full_cache") full_[setting_of(record)] = &record;
    }
    if (full_.empty()) {
      throw Error(ErrorKind::kData, "no full_cache records, so lost answers cannot be found", "results folder",
                  "add full_cache to the methods of the sweep and run it again");
    }
    for (const Record& record : records) look_at(record);
    const auto by_place = [](const LostAnswer& flip) {
      return std::tuple(flip.compact->cell_id, flip.document(), flip.question());
    };
    std::sort(flips_.list.begin(), flips_.list.end(),
              [&](const LostAnswer& a, const LostAnswer& b) { return by_place(a) < by_place(b); });
    if (n_online_ > 0)
      flips_.notes.push_back(fmt::format("{} skipped: compacted during generation, no document cache to inspect",
                                         count(n_online_, "record")));
    if (n_alone_ > 0)
      flips_.notes.push_back(
          fmt::format("{} skipped: full_cache has no record of their document", count(n_alone_, "record")));
  }

  LostAnswers take() { return std::move(flips_); }

 private:
  bool wanted(const Record& record) const {
    const std::string method = name_of(record, "method");
    if (record.status != "done" || method == "full_cache") return false;
    if (filter_.method.empty() ? method == "no_context" : method != filter_.method) return false;
    return (filter_.document.empty() || record.document_id == filter_.document) &&
           (filter_.target.empty() || target_of(record) == filter_.target);
  }

  void look_at(const Record& record) {
    if (!wanted(record)) return;
    const auto full = full_.find(setting_of(record));
    if (full == full_.end()) {
      ++n_alone_;
      return;
    }
    try {
      compare(*full->second, record);
    } catch (const Error& error) {
      flips_.notes.push_back(fmt::format("{} skipped: {}", record.place, error.fact()));
    }
  }

  void compare(const Record& full, const Record& compact) {
    const auto before = judged(full), after = judged(compact);
    if (!before.empty() && !compact.seconds.contains("prefill_s")) {
      ++n_online_;
      return;
    }
    for (const auto& [question, answer] : before) {
      const auto other = after.find(question);
      if (!answer.second || other == after.end()) continue;
      if (!filter_.question.empty() && question != filter_.question) continue;
      ++flips_.n_compared;
      if (!other->second.second) flips_.list.push_back({&full, &compact, answer.first, other->second.first});
    }
  }

  const LostAnswerFilter& filter_;
  std::map<std::string, const Record*> full_;  // by setting
  LostAnswers flips_;
  int64_t n_online_ = 0, n_alone_ = 0;
};

}  // namespace

std::string LostAnswer::question() const {
  return question_of(compact->answers[compact_answer]);
}

LostAnswers find_lost_answers(const std::vector<Record>& records, const LostAnswerFilter& filter) {
  check_filter(records, filter);
  return Finder(records, filter).take();
}

std::vector<LostAnswer> chosen_answers(const std::vector<LostAnswer>& flips, int64_t limit) {
  std::map<std::string, std::vector<LostAnswer>> by_cell;
  for (const LostAnswer& flip : flips) by_cell[flip.compact->cell_id].push_back(flip);
  const size_t wanted = limit == 0 ? flips.size() : std::min(flips.size(), static_cast<size_t>(limit));
  std::vector<LostAnswer> chosen;
  for (size_t turn = 0; chosen.size() < wanted; ++turn) {
    for (const auto& [cell, list] : by_cell) {
      if (turn < list.size() && chosen.size() < wanted) chosen.push_back(list[turn]);
    }
  }
  return chosen;
}

}  // namespace kvc
