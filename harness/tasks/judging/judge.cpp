#include "harness/tasks/judging/judge.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

namespace kvc {
namespace {

std::map<std::string, TaskMetrics>& registered() {
  static std::map<std::string, TaskMetrics> metrics;
  return metrics;
}

}  // namespace

const TaskMetrics* find_task_metrics(const std::string& task) {
  const auto found = registered().find(task);
  return found == registered().end() ? nullptr : &found->second;
}

bool register_task_metrics(const std::string& task, TaskMetrics metrics) {
  if (!registered().emplace(task, std::move(metrics)).second) {
    throw Error(ErrorKind::kInternal, "two tasks register metrics under the name '" + task + "'", "", "rename one");
  }
  return true;
}

std::vector<AnswerFields> fields_of(const std::vector<Json>& answers, const std::string& where) {
  std::vector<AnswerFields> list;
  list.reserve(answers.size());
  for (size_t i = 0; i < answers.size(); ++i) list.emplace_back(answers, i, where);
  return list;
}

const std::string& AnswerFields::text(const char* name) const {
  const Json& value = at(name);
  if (!value.is_string()) fail(name, "must be a text");
  return value.get_ref<const std::string&>();
}

double AnswerFields::number(const char* name) const {
  return as_number(at(name), name);
}

int64_t AnswerFields::integer(const char* name, int64_t least) const {
  const Json& value = at(name);
  if (!value.is_number_integer()) fail(name, "must be an integer");
  if (value.get<int64_t>() < least) fail(name, fmt::format("must be at least {}; got {}", least, value.dump()));
  return value.get<int64_t>();
}

bool AnswerFields::flag(const char* name, bool missing) const {
  if (!has(name)) return missing;
  if (!at(name).is_boolean()) fail(name, "must be true or false");
  return at(name).get<bool>();
}

int64_t AnswerFields::count(const char* name) const {
  const Json& value = at(name);
  if (!value.is_array()) fail(name, "must be a list");
  return static_cast<int64_t>(value.size());
}

std::vector<double> AnswerFields::numbers(const char* name) const {
  const Json& value = at(name);
  if (!value.is_array() || value.empty()) fail(name, "must be a list of numbers that is not empty");
  std::vector<double> list;
  for (const Json& item : value) list.push_back(as_number(item, name));
  return list;
}

std::vector<AnswerFields> AnswerFields::parts(const char* name) const {
  const Json& value = at(name);
  if (!value.is_array() || value.empty()) fail(name, "must be a list that is not empty");
  std::vector<AnswerFields> list;
  for (const Json& item : value) list.push_back(AnswerFields(index_, where_, item));
  return list;
}

std::vector<std::string> AnswerFields::right_answers() const {
  std::vector<std::string> texts = {text("gold_answer")};
  if (!has("other_answers")) return texts;
  const Json& others = at("other_answers");
  if (!others.is_array()) fail("other_answers", "must be a list of texts");
  for (const Json& other : others) {
    if (!other.is_string()) fail("other_answers", "must be a list of texts");
    texts.push_back(other.get<std::string>());
  }
  return texts;
}

int64_t AnswerFields::gold_option(size_t n_options) const {
  const int64_t gold = integer("gold_option", 0);
  if (gold >= static_cast<int64_t>(n_options))
    fail("gold_option", fmt::format("must be below the number of options, {}; got {}", n_options, gold));
  return gold;
}

bool AnswerFields::cut_by_length() const {
  const std::string stop = text("stop_reason");
  if (stop != "end" && stop != "length") fail("stop_reason", "must be 'end' or 'length'; got '" + stop + "'");
  return stop == "length";
}

void AnswerFields::fail(const char* name, const std::string& fact) const {
  throw Error(ErrorKind::kData, fmt::format("field '{}' of answer {} {}", name, index_, fact), where_,
              "delete the record's line and run the sweep again; if it comes back, the task writes wrong answers");
}

const Json& AnswerFields::at(const char* name) const {
  if (!answer_.is_object()) fail(name, "is missing");
  const auto found = answer_.find(name);
  if (found == answer_.end()) fail(name, "is missing");
  return *found;
}

double AnswerFields::as_number(const Json& value, const char* name) const {
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    fail(name, "must hold finite numbers; got " + value.dump());
  return value.get<double>();
}

}  // namespace kvc
