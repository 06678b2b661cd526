// Multiple choice without letters, for models too small to follow an instruction: the question is the user turn, and
// each option is scored as the assistant's answer. The options are not listed, so that an option's score does not
// depend on the others.
//
// Fields of an answer: prompt (the user turn), rendered_prompt, option_log_likelihood (of each option's text, natural
// log, summed over its tokens; the end of the turn is not scored), option_tokens, option_bytes (lengths, for ranking by
// mean).

#include <fmt/format.h>

#include <cmath>

#include "harness/tasks/written_answers.h"

namespace kvc {
namespace {

class Likelihood final : public Task {
 public:
  using Options = NoOptions;
  explicit Likelihood(Options) {}

  bool accepts(const Question& question) const override { return question.options.size() >= 2; }

  // All options of all questions in one batch; a question's prompt is read once.
  std::vector<Json> ask(const AskRequest& request) const override {
    std::vector<Ask> asks;
    std::vector<Continuation> continuations;
    for (const Question& question : request.questions) {
      for (const std::string& option : question.options) {
        continuations.push_back({static_cast<int64_t>(asks.size()), request.model.tokenizer().encode_text(option)});
        if (continuations.back().tokens.empty()) {
          throw Error(ErrorKind::kData, fmt::format("option '{}' has no tokens", option), "question " + question.id,
                      "an option needs a text");
        }
      }
      asks.push_back({question.text, ""});
    }
    const std::vector<std::vector<int64_t>> prompts = make_prompts(request.model, asks);
    const std::vector<double> scores =
        continuation_log_likelihoods(request.model, request.cache, prompts, continuations);
    std::vector<Json> answers = collect(request.questions, continuations, scores);
    for (size_t i = 0; i < answers.size(); ++i) answers[i]["rendered_prompt"] = spelled(request.model, prompts[i]);
    return answers;
  }

 private:
  static std::vector<Json> collect(const std::vector<Question>& questions,
                                   const std::vector<Continuation>& continuations, const std::vector<double>& scores) {
    std::vector<Json> answers;
    size_t next = 0;
    for (const Question& question : questions) {
      Json answer = {{"question_id", question.id},
                     {"prompt", question.text},
                     {"option_log_likelihood", Json::array()},
                     {"option_tokens", Json::array()},
                     {"option_bytes", Json::array()}};
      for (const std::string& option : question.options) {
        if (!std::isfinite(scores[next])) {
          throw Error(ErrorKind::kData, fmt::format("the log-likelihood of option '{}' is {}", option, scores[next]),
                      "question " + question.id, "the cache holds numbers that are not finite; try dtype float32");
        }
        answer["option_log_likelihood"].push_back(scores[next]);
        answer["option_tokens"].push_back(continuations[next].tokens.size());
        answer["option_bytes"].push_back(option.size());
        ++next;
      }
      answers.push_back(std::move(answer));
    }
    return answers;
  }
};

KVC_REGISTER_TASK(Likelihood, "likelihood", "ranking of options by log-likelihood (arXiv:2005.14165)");

}  // namespace
}  // namespace kvc
