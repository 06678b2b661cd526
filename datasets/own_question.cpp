#include "datasets/own_question.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvc {
namespace {

void read_gold(DataReader& in, const Json& json, const std::string& parent, Question& question) {
  const std::string field = parent + "gold";
  const std::vector<std::string>& options = question.options;
  if (!json.contains("gold")) {
    in.add(field, "'gold' is missing", "the right option's number, from 1, or its text");
    return;
  }
  const Json& gold = json.at("gold");
  if (gold.is_string()) {
    const auto found = std::find(options.begin(), options.end(), strip_space(gold.get<std::string>()));
    if (found != options.end()) {
      question.gold_option = found - options.begin();
    } else {
      in.add(field, fmt::format("gold must be one of the options; got {}", shown(gold)),
             "repeat one of them exactly, or give its number, from 1");
    }
    return;
  }
  if (!gold.is_number_integer()) {
    in.add(field, fmt::format("'gold' must be a number or text; got {}", shown(gold)),
           "the right option's number, from 1, or its text");
    return;
  }
  // Unsigned numbers beyond int64 would wrap around: compare before they are narrowed.
  const bool too_large = gold.is_number_unsigned() && gold.get<std::uint64_t>() > options.size();
  if (too_large || gold.get<int64_t>() < 1) {
    in.add(field, fmt::format("gold {} of {} options", gold.dump(), options.size()),
           fmt::format("1 to {}", options.size()));
    return;
  }
  question.gold_option = gold.get<int64_t>() - 1;
}

// One right answer, or a list of them of which any one is enough.
void read_answers(DataReader& in, const Json& json, const std::string& parent, Question& question) {
  if (!json.contains("answer") || !json.at("answer").is_array()) {
    question.gold_answer = in.text_field(json, parent, "answer");
    return;
  }
  const Json& list = json.at("answer");
  if (list.empty()) in.add(parent + "answer", "'answer' is an empty list", "give at least one right answer");
  std::vector<std::string> answers;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string text = list[i].is_string() ? strip_space(list[i].get<std::string>()) : "";
    if (text.empty()) {
      in.add(fmt::format("{}answer[{}]", parent, i), fmt::format("a right answer must be text; got {}", shown(list[i])),
             "write it in quotes");
    }
    answers.push_back(text);
  }
  set_right_answers(answers, question);
}

}  // namespace

Question read_own_question(DataReader& in, const Json& json, const std::string& parent, const std::string& default_id) {
  Question question;
  question.id = json.contains("id") ? in.text_field(json, parent, "id") : default_id;
  in.check_distinct("question id", question.id, parent + "id");
  question.text = in.text_field(json, parent, "question");
  if (json.contains("answer_prefix")) question.answer_prefix = in.text_field(json, parent, "answer_prefix");
  if (json.contains("extra")) {
    if (json.at("extra").is_object()) {
      question.extra = json.at("extra");
    } else {
      in.add(parent + "extra", fmt::format("'extra' must be an object; got {}", shown(json.at("extra"))),
             "write {\"name\": value}");
    }
  }
  const bool is_choice = json.contains("options");
  if (is_choice && json.contains("answer")) {
    in.add(parent + "answer", "a question with options has a free answer too",
           "give `options` and `gold`, or `answer`");
  } else if (is_choice) {
    if (in.options_field(json, parent, question.options)) read_gold(in, json, parent, question);
  } else if (json.contains("gold")) {
    in.add(parent + "gold", "'gold' needs options", "give `options` and `gold`, or `answer`");
  } else {
    read_answers(in, json, parent, question);
  }
  return question;
}

}  // namespace kvc
