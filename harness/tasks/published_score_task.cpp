// A free answer scored as its benchmark publishes it (LongBench, InfiniteBench, LooGLE): the question as user turn, the
// rest written greedily.
//
// Fields of an answer: as exact_match, and score_rule (published_score.h), references and classes (lists of {text}),
// first_line. They are the question's extra; without references the right answers.
//
// Metrics, of what is written behind the thought (thought.h):
// - score: published_score()
// - length_limit_rate: 1 if stop_reason is "length"; benchmarks cut answers on purpose

#include <algorithm>
#include <map>

#include "harness/tasks/judging/judge.h"
#include "harness/tasks/judging/published_score.h"
#include "harness/tasks/judging/thought.h"
#include "harness/tasks/written_answers.h"

namespace kvc {
namespace {

Json as_text_list(const Json& texts) {
  Json list = Json::array();
  if (!texts.is_array()) return list;
  for (const Json& text : texts) {
    if (text.is_string()) list.push_back({{"text", text}});
  }
  return list;
}

class PublishedScore final : public WritingTask {
 public:
  struct Options {
    int64_t max_new_tokens = 0;
    void fields(auto&& visit) {
      visit("max_new_tokens", max_new_tokens, "longest answer; 0: the benchmark's own limit, else 128", at_least(0));
    }
  };

  explicit PublishedScore(Options options) : options_(options) {}

  bool accepts(const Question& question) const override {
    const Json rule = question.extra.value("score_rule", Json());
    return !question.gold_answer.empty() && rule.is_string() && is_score_rule(rule.get<std::string>());
  }

 protected:
  // Questions of different limits are written apart, so that none is given more than its benchmark allows.
  std::vector<Writing> writings(const Model& /*model*/, const std::vector<Question>& questions) const override {
    std::map<int64_t, Writing> of_limit;
    for (const Question& question : questions) {
      Writing& writing = of_limit[longest_of(question)];
      writing.questions.push_back(question);
      writing.asks.push_back({question.text, question.answer_prefix});
      writing.settings.max_new_tokens = longest_of(question);
    }
    std::vector<Writing> list;
    for (auto& [limit, writing] : of_limit) list.push_back(std::move(writing));
    return list;
  }

  std::vector<Json> finish(const std::vector<Question>& questions, std::vector<Json> texts) const override {
    std::multimap<int64_t, size_t> places;  // of the texts, in their order
    for (size_t i = 0; i < questions.size(); ++i) places.emplace(longest_of(questions[i]), i);
    std::vector<Json> answers(questions.size());
    auto text = texts.begin();
    for (const auto& [limit, i] : places) answers[i] = finish_one(questions[i], std::move(*text++));
    return answers;
  }

 private:
  static Json finish_one(const Question& question, Json answer) {
    answer["answer_prefix"] = question.answer_prefix;
    answer["score_rule"] = question.extra.at("score_rule");
    answer["references"] = as_text_list(question.extra.value("references", Json()));
    if (answer["references"].empty()) {
      answer["references"] = as_text_list(question.other_answers);
      answer["references"].push_back({{"text", question.gold_answer}});
    }
    const Json classes = as_text_list(question.extra.value("classes", Json()));
    if (!classes.empty()) answer["classes"] = classes;
    if (question.extra.value("first_line", Json()) == Json(true)) answer["first_line"] = true;
    return answer;
  }

  int64_t longest_of(const Question& question) const {
    if (options_.max_new_tokens > 0) return options_.max_new_tokens;
    constexpr int64_t kDefault = 128, kMost = 65536;
    const Json own = question.extra.value("max_new_tokens", Json());
    return own.is_number_integer() && own > 0 ? std::clamp<int64_t>(own.get<int64_t>(), 1, kMost) : kDefault;
  }

  Options options_;
};

std::vector<std::string> texts_of(const AnswerFields& answer, const char* name) {
  std::vector<std::string> texts;
  for (const AnswerFields& part : answer.parts(name)) texts.push_back(part.text("text"));
  return texts;
}

std::vector<double> judge_published_score(const AnswerFields& answer) {
  const std::string& rule = answer.text("score_rule");
  if (!is_score_rule(rule)) answer.fail("score_rule", "unknown score rule");
  const std::vector<std::string> classes =
      answer.has("classes") ? texts_of(answer, "classes") : std::vector<std::string>();
  return {published_score(rule, answer_text(answer), texts_of(answer, "references"), classes,
                          answer.flag("first_line", false)),
          is_true(answer.cut_by_length())};
}

KVC_REGISTER_TASK(PublishedScore, "published_score",
                  "free answers scored as LongBench, InfiniteBench and LooGLE publish it");
KVC_REGISTER_METRICS("published_score", one_by_one<judge_published_score>,
                     {{"score", "score as published", true, true},
                      {"length_limit_rate", "cut off by the length limit", true, false}});

}  // namespace
}  // namespace kvc
