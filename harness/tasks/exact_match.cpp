// A short free answer with a known gold: the question as user turn, the answer's first words given, the rest written
// greedily.
//
// Fields of an answer: prompt (the user turn), rendered_prompt, answer_prefix (the words given), text (what the model
// wrote behind them), stop_reason ("end", "length"), n_tokens.

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

KVC_REGISTER_TASK(ExactMatch, "exact_match", "needle in a haystack (Kamradt 2023)");

}  // namespace
}  // namespace kvc
