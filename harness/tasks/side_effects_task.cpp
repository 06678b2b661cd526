// What a reply must keep besides being right: a rule, a format, a secret (data set side_effects). The question as user
// turn, the reply written greedily.
//
// Fields of an answer: prompt, rendered_prompt, text, stop_reason, n_tokens as in exact_match; check, check_text, never
// (kept_rule.h) and right (what a right reply says): the question's extra.
//
// Metrics, of what is written behind the thought (thought.h):
// - kept: 1 if keeps_rule()
// - answered: 1 if the reply also says what is right: the fact, that it is not stated, that it cannot be told
// - length_limit_rate: 1 if stop_reason is "length"

#include "harness/tasks/judging/answer_text.h"
#include "harness/tasks/judging/judge.h"
#include "harness/tasks/judging/kept_rule.h"
#include "harness/tasks/judging/thought.h"
#include "harness/tasks/written_answers.h"

namespace kvc {
namespace {

class SideEffectsTask final : public WritingTask {
 public:
  struct Options {
    int64_t max_new_tokens = 48;
    void fields(auto&& visit) { visit("max_new_tokens", max_new_tokens, "longest reply", at_least(1)); }
  };

  explicit SideEffectsTask(Options options) : options_(options) {}

  bool accepts(const Question& question) const override {
    const Json check = question.extra.value("check", Json());
    return check.is_string() && is_rule_check(check.get<std::string>());
  }

 protected:
  std::vector<Writing> writings(const Model& /*model*/, const std::vector<Question>& questions) const override {
    Writing writing{questions, {}, {}};
    for (const Question& question : questions) writing.asks.push_back({question.text, ""});
    writing.settings.max_new_tokens = options_.max_new_tokens;
    return {writing};
  }

  std::vector<Json> finish(const std::vector<Question>& questions, std::vector<Json> texts) const override {
    for (size_t i = 0; i < texts.size(); ++i) {
      for (const char* name : {"check", "check_text", "never", "right"})
        texts[i][name] = questions[i].extra.value(name, Json(""));
    }
    return texts;
  }

 private:
  Options options_;
};

std::vector<double> judge_side_effects(const AnswerFields& answer) {
  const std::string& check = answer.text("check");
  if (!is_rule_check(check)) answer.fail("check", "unknown rule");
  const std::string reply = answer_text(answer);
  const std::vector<std::string> right = normalised_words(answer.text("right"));
  const bool says = !right.empty() && word_overlap(normalised_words(reply), right).contained;
  const bool cut = answer.cut_by_length();
  const KeptRule rule{check, answer.text("check_text"), answer.text("right"),
                      check == "refuses" ? answer.text("never") : ""};
  return {is_true(keeps_rule(rule, reply, cut)), is_true(says), is_true(cut)};
}

KVC_REGISTER_TASK(SideEffectsTask, "side_effects", "what replies must keep");
KVC_REGISTER_METRICS("side_effects", one_by_one<judge_side_effects>,
                     {{"kept", "the rule is kept", true, true},
                      {"answered", "the reply contains the right answer", true, true},
                      {"length_limit_rate", "cut off by the length limit", true, false}});

}  // namespace
}  // namespace kvc
