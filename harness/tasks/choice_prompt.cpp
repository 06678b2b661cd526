#include "harness/tasks/choice_prompt.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/tasks/judging/pattern.h"

namespace kvc {

std::string option_letters(int64_t n_options) {
  std::string letters = "A";
  for (int64_t i = 1; i < n_options; ++i) {
    const bool last = i == n_options - 1;
    letters += n_options == 2 ? " or " : last ? ", or " : ", ";
    letters += static_cast<char>('A' + i);
  }
  return letters;
}

std::string choice_instruction(const std::string& architecture, const std::string& model_name, int64_t n_options) {
  const std::string letters = option_letters(n_options);
  constexpr const char* kEnd = "of the correct option. If you are not sure, still make a guess.";
  if (architecture == "qwen3" && model_name.find("Instruct-2507") != std::string::npos) {
    return fmt::format(
        "Please think step by step very briefly and then, on a new line, respond with the letter ({}) {}", letters,
        kEnd);
  }
  if (architecture == "qwen3") {
    return fmt::format("Please think very briefly and then respond with **only** the letter ({}) {}", letters, kEnd);
  }
  return fmt::format(
      "Please think step by step briefly and then, on a new line, respond with **only** the letter ({}) {}", letters,
      kEnd);
}

std::string choice_prompt(const Question& question, const std::string& architecture, const std::string& model_name) {
  std::string prompt = question.text + "\n\n";
  for (size_t i = 0; i < question.options.size(); ++i) {
    prompt += fmt::format("{}. {}\n", static_cast<char>('A' + i), question.options[i]);
  }
  const auto n_options = static_cast<int64_t>(question.options.size());
  return prompt + "\n" + choice_instruction(architecture, model_name, n_options);
}

bool options_name_each_other(const Question& question) {
  static const Pattern naming(
      R"((?i)\b(?:all|none|any|both|neither|either|each|two|three) of (?:the |these |those )?(?:above|below|following|other|others|options?|choices|answers|these|those)\b)"
      R"(|\b(?:all|none) of (?:them|these)\W*$)"
      R"(|^\W*(?-i)(?:(?i:both|options?|choices?|answers?|either|neither)\s+)*\(?[A-Z]\)?(?:\s*(?:,|&|/|(?i:and|or|nor))+\s*(?i:option\s+)?\(?[A-Z]\)?)+\W*$)"
      R"(|\b(?-i)(?i:options?|choices?|answers?)\s+\(?[A-Z]\)?(?:\W|$))");
  return std::any_of(question.options.begin(), question.options.end(),
                     [&](const std::string& option) { return naming.is_in(option); });
}

std::vector<int64_t> equal_options(const Question& question) {
  std::vector<int64_t> list;
  if (!question.gold_option) return list;
  const std::string& right = question.options.at(static_cast<size_t>(*question.gold_option));
  for (size_t i = 0; i < question.options.size(); ++i) {
    if (question.options[i] == right) list.push_back(static_cast<int64_t>(i));
  }
  return list;
}

}  // namespace kvc
