// A short free answer with a known gold: the question as user turn, the answer's first words given, the rest written
// greedily.
//
// Fields of an answer: prompt (the user turn), rendered_prompt, answer_prefix (the words given), text (what the model
// wrote behind them), stop_reason ("end", "length"), n_tokens.
//
// Metrics, of what is written behind the thought (thought.h), each for the right answer that fits best where a question
// has several (gold_answer, other_answers), as SQuAD's evaluation does (arXiv:1606.05250):
// - accuracy: 1 if exact_match(text, right answer)
// - found: 1 if accuracy is 1 and no answer to a question of the same document with another right answer matches this
//   one's too: a method that gives one answer to everything finds nothing. No value where there is no such question.
// - exact, f1: word_overlap of the text's first line and the right answer (answer_text.h); contained: of the whole text
// - length_limit_rate: 1 if stop_reason is "length"

#include <algorithm>
#include <limits>
#include <optional>

#include "harness/tasks/judging/answer_text.h"
#include "harness/tasks/judging/judge.h"
#include "harness/tasks/judging/thought.h"
#include "harness/tasks/written_answers.h"

namespace kvc {
namespace {

class ExactMatch final : public WritingTask {
 public:
  struct Options {
    int64_t max_new_tokens = 16;
    void fields(auto&& visit) { visit("max_new_tokens", max_new_tokens, "longest answer", at_least(1)); }
  };

  explicit ExactMatch(Options options) : options_(options) {}

  bool accepts(const Question& question) const override { return !question.gold_answer.empty(); }

 protected:
  std::vector<Writing> writings(const Model& /*model*/, const std::vector<Question>& questions) const override {
    Writing writing{questions, {}, {}};
    for (const Question& question : questions) writing.asks.push_back({question.text, question.answer_prefix});
    writing.settings.max_new_tokens = options_.max_new_tokens;
    return {writing};
  }

  std::vector<Json> finish(const std::vector<Question>& questions, std::vector<Json> texts) const override {
    for (size_t i = 0; i < texts.size(); ++i) texts[i]["answer_prefix"] = questions[i].answer_prefix;
    return texts;
  }

 private:
  Options options_;
};

// An answer and its right answers, read once: every question of a document looks at the answers to all others.
struct Read {
  explicit Read(const AnswerFields& answer)
      : text(answer_text(answer)), right_texts(answer.right_answers()), written(text) {
    for (const std::string& right : right_texts) golds.emplace_back(right);
  }
  bool gives(const std::vector<GoldAnswer>& any) {
    return std::any_of(any.begin(), any.end(), [&](const GoldAnswer& gold) { return written.gives(gold); });
  }
  bool shares_answer(const Read& other) const {
    return std::any_of(golds.begin(), golds.end(), [&](const GoldAnswer& own) {
      return std::any_of(other.golds.begin(), other.golds.end(),
                         [&](const GoldAnswer& gold) { return gold.same_words(own); });
    });
  }
  std::string text;
  std::vector<std::string> right_texts;
  std::vector<GoldAnswer> golds;
  WrittenAnswer written;
};

// Whether a right answer of `asked` is given to another question of the document, which has no right answer in common
// with it; nothing where every question has.
std::optional<bool> given_elsewhere(std::vector<Read>& document, size_t asked) {
  std::optional<bool> given;
  for (size_t other = 0; other < document.size(); ++other) {
    if (other == asked || document[other].shares_answer(document[asked])) continue;
    if (document[other].gives(document[asked].golds)) return true;
    given = false;
  }
  return given;
}

// The best over the right answers of the first line's words, and `contained` of the whole text's.
WordOverlap best_overlap(const Read& read) {
  const std::string first_line = first_line_of(read.text);
  const std::vector<std::string> line_words = normalised_words(first_line);
  const std::vector<std::string> all_words = first_line == read.text ? line_words : normalised_words(read.text);
  WordOverlap best;
  for (const std::string& right : read.right_texts) {
    const std::vector<std::string> gold_words = normalised_words(right);
    const WordOverlap line = word_overlap(line_words, gold_words);
    best.exact = best.exact || line.exact;
    best.f1 = std::max(best.f1, line.f1);
    best.contained = best.contained || word_overlap(all_words, gold_words).contained;
  }
  return best;
}

std::vector<std::vector<double>> judge_exact_match(const std::vector<AnswerFields>& answers) {
  std::vector<Read> document;
  document.reserve(answers.size());
  for (const AnswerFields& answer : answers) document.emplace_back(answer);
  std::vector<std::vector<double>> values;
  for (size_t i = 0; i < answers.size(); ++i) {
    const WordOverlap overlap = best_overlap(document[i]);
    const bool right = document[i].gives(document[i].golds);
    const std::optional<bool> elsewhere = given_elsewhere(document, i);
    values.push_back(
        {is_true(right), elsewhere ? is_true(right && !*elsewhere) : std::numeric_limits<double>::quiet_NaN(),
         is_true(overlap.exact), is_true(overlap.contained), overlap.f1, is_true(answers[i].cut_by_length())});
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
