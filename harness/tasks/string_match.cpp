// Several right answers in one reply, scored as RULER does (arXiv:2404.06654): the question as user turn, the answer's
// first words given, the rest written greedily.
//
// Fields of an answer: as exact_match, and references (a list of {text}), any_reference (one of them is enough). They
// are the question's extra.references and extra.any_reference; without them the right answers, one of which is enough.
//
// Metrics, of what is written behind the thought (thought.h):
// - string_match: share of the references that the reply holds, upper and lower case alike (RULER's "all"); where one
//   is enough, 1 if it holds any (RULER's "part")
// - complete: 1 if string_match is 1

#include <algorithm>

#include "harness/core/utf8.h"
#include "harness/tasks/judging/answer_words.h"
#include "harness/tasks/judging/judge.h"
#include "harness/tasks/judging/thought.h"
#include "harness/tasks/written_answers.h"

namespace kvc {
namespace {

class StringMatch final : public WritingTask {
 public:
  struct Options {
    int64_t max_new_tokens = 0;
    void fields(auto&& visit) {
      visit("max_new_tokens", max_new_tokens, "longest answer; 0: what the question's data set says, else 128",
            at_least(0));
    }
  };

  explicit StringMatch(Options options) : options_(options) {}

  bool accepts(const Question& question) const override { return !question.gold_answer.empty(); }

 protected:
  std::vector<Writing> writings(const Model& /*model*/, const std::vector<Question>& questions) const override {
    Writing writing{questions, {}, {}};
    int64_t& limit = writing.settings.max_new_tokens = options_.max_new_tokens;
    for (const Question& question : questions) {
      writing.asks.push_back({question.text, question.answer_prefix});
      if (options_.max_new_tokens == 0) limit = std::max(limit, longest_of(question));
    }
    return {writing};
  }

  std::vector<Json> finish(const std::vector<Question>& questions, std::vector<Json> texts) const override {
    for (size_t i = 0; i < texts.size(); ++i) {
      texts[i]["answer_prefix"] = questions[i].answer_prefix;
      Json own = own_references(questions[i]);
      texts[i]["any_reference"] = own.empty() ? !questions[i].other_answers.empty()
                                              : questions[i].extra.value("any_reference", Json(false)) == Json(true);
      texts[i]["references"] = own.empty() ? right_answers(questions[i]) : std::move(own);
    }
    return texts;
  }

 private:
  static int64_t longest_of(const Question& question) {
    constexpr int64_t kDefault = 128, kMost = 4096;
    const Json own = question.extra.value("max_new_tokens", Json());
    return own.is_number_integer() && own > 0 ? std::clamp<int64_t>(own.get<int64_t>(), 1, kMost) : kDefault;
  }

  static Json own_references(const Question& question) {
    Json list = Json::array();
    const Json given = question.extra.value("references", Json());
    if (!given.is_array()) return list;
    for (const Json& text : given) {
      if (text.is_string() && !text.get<std::string>().empty()) list.push_back({{"text", text}});
    }
    return list;
  }

  static Json right_answers(const Question& question) {
    Json list = Json::array();
    list.push_back({{"text", question.gold_answer}});
    for (const std::string& other : question.other_answers) list.push_back({{"text", other}});
    return list;
  }

  Options options_;
};

std::vector<double> judge_string_match(const AnswerFields& answer) {
  const std::string text = answer_text(answer);
  const std::vector<AnswerFields> references = answer.parts("references");
  const auto held = std::count_if(references.begin(), references.end(), [&](const AnswerFields& reference) {
    return holds_text(text, reference.text("text"));
  });
  const double share = answer.flag("any_reference", false)
                           ? is_true(held > 0)
                           : static_cast<double>(held) / static_cast<double>(references.size());
  return {share, is_true(share >= 1)};
}

KVC_REGISTER_TASK(StringMatch, "string_match", "RULER, arXiv:2404.06654");
KVC_REGISTER_METRICS("string_match", one_by_one<judge_string_match>,
                     {{"string_match", "share of the right answers in the reply", true, true},
                      {"complete", "every right answer is in the reply", true, true}});

}  // namespace
}  // namespace kvc
