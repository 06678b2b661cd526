// A short free answer with a known gold: the question as user turn, the answer's first words given, the rest written
// greedily.
//
// Fields of an answer: prompt (the user turn), rendered_prompt, answer_prefix (the words given), text (what the model
// wrote behind them), stop_reason ("end", "length"), n_tokens.
//
// Metrics, of what is written behind the thought (thought.h):
// - accuracy: 1 if exact_match(text, gold_answer)
// - found: 1 if accuracy is 1 and no answer to a question of the same document with another right answer matches this
//   one's too: a method that gives one answer to everything finds nothing. No value where there is no such question.
// - exact, f1: word_overlap of the text's first line and gold_answer (answer_text.h); contained: of the whole text
// - length_limit_rate: 1 if stop_reason is "length"

#include <limits>
#include <optional>

#include "harness/tasks/judging/answer_text.h"
#include "harness/tasks/judging/judge.h"
#include "harness/tasks/judging/thought.h"
#include "harness/tasks/written_answers.h"

namespace kvc {
namespace {

class ExactMatch final : public Task {
 public:
  struct Options {
    int64_t max_new_tokens = 16;
    void fields(auto&& visit) { visit("max_new_tokens", max_new_tokens, "longest answer"); }
    void check(const OptionCheck& fail) const {
      if (max_new_tokens < 1) fail("max_new_tokens", "is below 1", "1 or more");
    }
  };

  explicit ExactMatch(Options options) : options_(options) {}

  bool accepts(const Question& question) const override { return !question.gold_answer.empty(); }

  std::vector<Json> ask(const AskRequest& request) const override {
    std::vector<Ask> asks;
    for (const Question& question : request.questions) asks.push_back({question.text, question.answer_prefix});
    DecodeSettings settings;
    settings.max_new_tokens = options_.max_new_tokens;
    std::vector<Json> answers = write_answers(request, asks, settings);
    for (size_t i = 0; i < answers.size(); ++i) answers[i]["answer_prefix"] = asks[i].answer_prefix;
    return answers;
  }

 private:
  Options options_;
};

// An answer and its gold, read once: every question of a document looks at the answers to all others.
struct Read {
  explicit Read(const AnswerFields& answer)
      : text(answer_text(answer)), gold_text(answer.text("gold_answer")), gold(gold_text), written(text) {}
  std::string text, gold_text;
  GoldAnswer gold;
  WrittenAnswer written;
};

// Whether the right answer of `asked` is given to another question of the document, which has another one; nothing
// where no question has another.
std::optional<bool> given_elsewhere(std::vector<Read>& document, size_t asked) {
  std::optional<bool> given;
  for (size_t other = 0; other < document.size(); ++other) {
    if (other == asked || document[other].gold.same_words(document[asked].gold)) continue;
    if (document[other].written.gives(document[asked].gold)) return true;
    given = false;
  }
  return given;
}

std::vector<std::vector<double>> judge_exact_match(const std::vector<AnswerFields>& answers) {
  std::vector<Read> document;
  document.reserve(answers.size());
  for (const AnswerFields& answer : answers) document.emplace_back(answer);
  std::vector<std::vector<double>> values;
  for (size_t i = 0; i < answers.size(); ++i) {
    Read& read = document[i];
    const std::vector<std::string> gold_words = normalised_words(read.gold_text);
    const std::string first_line = first_line_of(read.text);
    const WordOverlap line = word_overlap(normalised_words(first_line), gold_words);
    const WordOverlap all = first_line == read.text ? line : word_overlap(normalised_words(read.text), gold_words);
    const bool right = read.written.gives(read.gold);
    const std::optional<bool> elsewhere = given_elsewhere(document, i);
    values.push_back({is_true(right),
                      elsewhere ? is_true(right && !*elsewhere) : std::numeric_limits<double>::quiet_NaN(),
                      is_true(line.exact), is_true(all.contained), line.f1, is_true(answers[i].cut_by_length())});
  }
  return values;
}

KVC_REGISTER_TASK(ExactMatch, "exact_match", "needle in a haystack (Kamradt 2023)");
KVC_REGISTER_METRICS("exact_match", judge_exact_match,
                     {{"accuracy", "accuracy: right answer in the first sentence", true, true},
                      {"found", "right, and not the answer to other questions too", true, true},
                      {"exact", "first line is the right answer", true, true},
                      {"contained", "right answer anywhere in the reply", true, true},
                      {"f1", "F1 of the first line's words", true, true},
                      {"length_limit_rate", "cut off by the length limit", true, false}});

}  // namespace
}  // namespace kvc
