// Multiple choice by letter: the options are listed, the model thinks aloud and names one (prompts: choice_prompt.h).
//
// Fields of an answer: prompt (the user turn), rendered_prompt, text (all that the model wrote, thoughts included),
// stop_reason ("end", "length"), n_tokens.
//
// Small models prefer a letter whatever stands behind it (arXiv:2309.03882). `rotations` asks each question several
// times with its options moved round: an answer then has question_id and rotations, a list with the fields above and
// shift: letter i stood before option (i + shift) mod n_options.
//
// A question two of whose options have the right one's text also has right_options, a list: each of them is right.
// Options that name other options ("B and C", "all of the above") mean something else in another order: with rotations
// other than 1 such a question is not asked.
//
// Metrics, each the mean over `rotations` where the question was asked in several orders of its options, what was
// chosen mapped back by (choice + shift) mod n_options:
// - accuracy: 1 if choice_answer(what is written behind the thought) is right; an answer that was cut off by the length
//   limit names none
// - accuracy_paper: the same by paper_choice(text), the parser of arXiv:2602.16284, which reads cut answers too
// - parse_rate: 1 if choice_answer names an option and the answer was not cut off
// - length_limit_rate: 1 if stop_reason is "length"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "harness/tasks/choice_prompt.h"
#include "harness/tasks/judging/choice_answer.h"
#include "harness/tasks/judging/judge.h"
#include "harness/tasks/judging/paper_choice.h"
#include "harness/tasks/judging/thought.h"
#include "harness/tasks/sampling_choice.h"

namespace kvc {
namespace {

class MultipleChoice final : public WritingTask {
 public:
  struct Options : SamplingChoice {
    int64_t max_new_tokens = 2048;
    int64_t thinking_budget = -1;
    std::string rotations = "1";

    void fields(auto&& visit) {
      visit("max_new_tokens", max_new_tokens,
            "longest answer, thought included; answers cut off at the limit count as unparsed", at_least(1));
      choice_fields(visit);
      visit("thinking_budget", thinking_budget, "longest thought in tokens, then </think> is inserted; -1: no limit",
            at_least(-1));
      visit("rotations", rotations, "orders of the options in which each question is asked: 1, 2, ... or all");
    }
    void check(const OptionCheck& fail) const {
      SamplingChoice::check(fail);
      if (!most_rotations()) {
        fail("rotations", fmt::format("must be all or 1 to 26; got '{}'", rotations), "default: 1");
      }
    }
    std::optional<int64_t> most_rotations() const {
      if (rotations == "all") return 26;
      int64_t n = 0;
      const char* end = rotations.data() + rotations.size();
      const auto [rest, problem] = std::from_chars(rotations.data(), end, n);
      return problem == std::errc() && rest == end && n >= 1 && n <= 26 ? std::optional(n) : std::nullopt;
    }
  };

  explicit MultipleChoice(Options options) : options_(options) {}

  bool accepts(const Question& question) const override {
    const bool turned = options_.most_rotations().value() > 1;
    return question.options.size() >= 2 && question.options.size() <= 26 &&
           !(turned && options_name_each_other(question));
  }

 protected:
  // Each rotation of each question, under an id of its own: the seed of its answer.
  std::vector<Writing> writings(const Model& model, const std::vector<Question>& questions) const override {
    const std::string architecture = model.identity().value("architecture", "");
    const std::string name = model.identity().value("name", "");
    Writing writing{{}, {}, settings(model)};
    for (const Question& question : questions) {
      for (int64_t shift = 0; shift < orders_of(question); ++shift) {
        writing.questions.push_back(rotated(question, shift));
        writing.asks.push_back({choice_prompt(writing.questions.back(), architecture, name), ""});
      }
    }
    return {writing};
  }

  std::vector<Json> finish(const std::vector<Question>& questions, std::vector<Json> texts) const override {
    const bool turned = options_.most_rotations().value() > 1;
    std::vector<Json> answers = turned ? gathered(questions, std::move(texts)) : std::move(texts);
    for (size_t i = 0; i < answers.size(); ++i) {
      const std::vector<int64_t> right = equal_options(questions[i]);
      if (right.size() > 1) answers[i]["right_options"] = right;
    }
    return answers;
  }

 private:
  static Question rotated(Question question, int64_t shift) {
    if (shift == 0) return question;
    std::rotate(question.options.begin(), question.options.begin() + shift, question.options.end());
    question.id += "/" + std::to_string(shift);
    return question;
  }

  int64_t orders_of(const Question& question) const {
    return std::min(options_.most_rotations().value(), static_cast<int64_t>(question.options.size()));
  }

  std::vector<Json> gathered(const std::vector<Question>& questions, std::vector<Json> written) const {
    std::vector<Json> answers;
    size_t next = 0;
    for (const Question& question : questions) {
      Json rotations = Json::array();
      for (int64_t shift = 0; shift < orders_of(question); ++shift) {
        Json& one = written[next++];
        one.erase("question_id");
        one["shift"] = shift;
        rotations.push_back(std::move(one));
      }
      answers.push_back({{"question_id", question.id}, {"rotations", std::move(rotations)}});
    }
    return answers;
  }

  DecodeSettings settings(const Model& model) const {
    DecodeSettings settings;
    settings.max_new_tokens = options_.max_new_tokens;
    settings.thinking_budget = options_.thinking_budget;
    options_.apply(model, settings);
    return settings;
  }

  Options options_;
};

// An order of the options; letter i stood before option (i + shift) mod n_options. `right`: by option.
std::vector<double> judge_order(const AnswerFields& written, int64_t shift, const std::vector<bool>& right) {
  const auto n_options = static_cast<int64_t>(right.size());
  const bool cut = written.cut_by_length();
  const auto choice = cut ? std::nullopt : choice_answer(answer_text(written), n_options);
  const auto paper = paper_choice(written.text("text"), n_options);
  const auto is_right = [&](const std::optional<int64_t>& letter) {
    return is_true(letter && right[static_cast<size_t>((*letter + shift) % n_options)]);
  };
  return {is_right(choice), is_right(paper), is_true(choice.has_value()), is_true(cut)};
}

std::vector<bool> right_options(const AnswerFields& answer) {
  std::vector<bool> right(static_cast<size_t>(answer.integer("n_options", 1)), false);
  right[static_cast<size_t>(answer.gold_option(right.size()))] = true;
  if (!answer.has("right_options")) return right;
  for (const double option : answer.numbers("right_options")) {
    const bool fits = option >= 0 && option < static_cast<double>(right.size()) && option == std::floor(option);
    if (!fits) answer.fail("right_options", fmt::format("names option {} of {}", option, right.size()));
    right[static_cast<size_t>(option)] = true;
  }
  return right;
}

std::vector<double> judge_multiple_choice(const AnswerFields& answer) {
  const std::vector<bool> right = right_options(answer);
  if (!answer.has("rotations")) return judge_order(answer, 0, right);
  const std::vector<AnswerFields> rotations = answer.parts("rotations");
  std::vector<double> means(4, 0.0);
  for (const AnswerFields& rotation : rotations) {
    const int64_t shift = rotation.integer("shift", 0);
    if (shift >= static_cast<int64_t>(right.size()))
      rotation.fail("shift", fmt::format("is {} with {} options", shift, right.size()));
    const std::vector<double> values = judge_order(rotation, shift, right);
    for (size_t i = 0; i < means.size(); ++i) means[i] += values[i] / static_cast<double>(rotations.size());
  }
  return means;
}

KVC_REGISTER_TASK(MultipleChoice, "multiple_choice", "arXiv:2602.16284");
KVC_REGISTER_METRICS("multiple_choice", one_by_one<judge_multiple_choice>,
                     {{"accuracy", "accuracy, unread answers wrong", true, true},
                      {"accuracy_paper", "accuracy, read as arXiv:2602.16284 does", true, true},
                      {"parse_rate", "answers that could be read", true, true},
                      {"length_limit_rate", "cut off by the length limit", true, false}});

}  // namespace
}  // namespace kvc
