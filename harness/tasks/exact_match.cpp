// A short free answer with a known gold: the question as user turn, the answer's first words given, the rest written
// greedily.
//
// Fields of an answer: prompt (the user turn), rendered_prompt, answer_prefix (the words given), text (what the model
// wrote behind them), stop_reason ("end", "length"), n_tokens.
//
// Metrics:
// - accuracy: 1 if exact_match(text, gold_answer)
// - exact, f1: word_overlap of the text's first line and gold_answer (answer_text.h); contained: of the whole text
// - length_limit_rate: 1 if stop_reason is "length"

#include "harness/tasks/judging/answer_parser.h"
#include "harness/tasks/judging/answer_text.h"
#include "harness/tasks/judging/judge.h"
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

std::vector<double> judge(const AnswerFields& answer) {
  const std::string text = answer.text("text");
  const std::string gold = answer.text("gold_answer");
  const std::vector<std::string> gold_words = normalised_words(gold);
  const WordOverlap line = word_overlap(normalised_words(first_line_of(text)), gold_words);
  const WordOverlap all = word_overlap(normalised_words(text), gold_words);
  return {is_true(exact_match(text, gold)), is_true(line.exact), is_true(all.contained), line.f1,
          is_true(answer.cut_by_length())};
}

KVC_REGISTER_TASK(ExactMatch, "exact_match", "needle in a haystack (Kamradt 2023)");
KVC_REGISTER_METRICS("exact_match", judge,
                     {{"accuracy", "accuracy, right answer in the reply's first sentence", true, true},
                      {"exact", "share of replies whose first line is the right answer, normalised", true, true},
                      {"contained", "share of replies that hold the right answer, normalised", true, true},
                      {"f1", "F1 of the words of the reply's first line", false, true},
                      {"length_limit_rate", "share of answers cut off by the length limit", true, false}});

}  // namespace
}  // namespace kvc
