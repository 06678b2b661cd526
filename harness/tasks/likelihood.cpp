// Multiple choice without letters, for models too small to follow an instruction: the question is the user turn, and
// each option is scored as the assistant's answer. The options are not listed, so that an option's score does not
// depend on the others.
//
// Fields of an answer: prompt (the user turn), rendered_prompt, option_log_likelihood (of each option's text, natural
// log, summed over its tokens; the end of the turn is not scored), option_log_likelihood_neutral (the same behind a
// document and a question that say nothing, kNeutralDocument and kNeutralQuestion: how likely the option's words are of
// themselves, arXiv:2104.08315), option_tokens, option_bytes (lengths, for ranking by mean).
//
// Metrics:
// - accuracy: 1 if argmax_o log_likelihood[o] / tokens[o] is gold_option (the first of equals is taken), or one
//   of right_options, the options with the same text
// - accuracy_raw: the same without the division
// - accuracy_calibrated: 1 if argmax_o log_likelihood[o] - log_likelihood_neutral[o] is gold_option; no value in
// records
//   of older programs

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "harness/api/context.h"
#include "harness/tasks/choice_prompt.h"
#include "harness/tasks/judging/judge.h"
#include "harness/tasks/written_answers.h"

namespace kvc {
namespace {

constexpr const char* kNeutralDocument = "This document has no content.";
constexpr const char* kNeutralQuestion = "Answer the question.";

using NeutralScores = std::map<std::string, double>;  // by the option's text

// The options' tokens, to be scored behind the prompt of their question, or of `neutral` where that is given.
std::vector<Continuation> continuations_of(const Model& model, const std::vector<Question>& questions,
                                           const char* neutral = nullptr) {
  std::vector<Continuation> list;
  for (size_t i = 0; i < questions.size(); ++i) {
    const std::vector<std::string>& options = questions[i].options;
    const auto tokens = make_answers(model, neutral != nullptr ? neutral : questions[i].text, options);
    for (size_t k = 0; k < options.size(); ++k) {
      if (tokens[k].empty()) {
        throw Error(ErrorKind::kData, fmt::format("option '{}' has no tokens", options[k]),
                    "question " + questions[i].id, "an option needs a text");
      }
      list.push_back({neutral != nullptr ? 0 : static_cast<int64_t>(i), tokens[k]});
    }
  }
  return list;
}

// Prompts behind which an answer begins: a thought that a template opens is closed, or the options would be scored as
// its first words.
std::vector<std::vector<int64_t>> answer_prompts(const Model& model, const std::vector<Ask>& asks) {
  std::vector<std::vector<int64_t>> prompts = make_prompts(model, asks);
  for (std::vector<int64_t>& prompt : prompts) close_thought(model, prompt);
  return prompts;
}

double finite(double score, const std::string& option, const Question& question) {
  if (std::isfinite(score)) return score;
  throw Error(ErrorKind::kData, fmt::format("the log-likelihood of option '{}' is {}", option, score),
              "question " + question.id, "the cache holds numbers that are not finite; try dtype float32");
}

class Likelihood final : public ComparingTask<NeutralScores> {
 public:
  using Options = NoOptions;
  explicit Likelihood(Options) {}

  // Options are scored one by one: "B and C" or "all of the above" would mean nothing.
  bool accepts(const Question& question) const override {
    return question.options.size() >= 2 && !options_name_each_other(question);
  }

  // Depends on model and options alone; all options in one batch.
  NeutralScores make_reference(const AskRequest& on_full_cache) const override {
    const Model& model = on_full_cache.model;
    const std::vector<Continuation> continuations = continuations_of(model, on_full_cache.questions, kNeutralQuestion);
    NeutralScores neutral;
    if (continuations.empty()) return neutral;
    const KvCache cache = model.decoder().prefill(make_context(model, kNeutralDocument).tokens);
    const std::vector<double> scores =
        continuation_log_likelihoods(model, cache, answer_prompts(model, {{kNeutralQuestion, ""}}), continuations);
    size_t next = 0;
    for (const Question& question : on_full_cache.questions) {
      for (const std::string& option : question.options) neutral[option] = finite(scores[next++], option, question);
    }
    return neutral;
  }

  // All options of all questions in one batch; a question's prompt is read once.
  std::vector<Json> compare(const AskRequest& request, const NeutralScores& neutral) const override {
    std::vector<Ask> asks;
    for (const Question& question : request.questions) asks.push_back({question.text, ""});
    const std::vector<Continuation> continuations = continuations_of(request.model, request.questions);
    const std::vector<std::vector<int64_t>> prompts = answer_prompts(request.model, asks);
    const std::vector<double> scores =
        continuation_log_likelihoods(request.model, request.cache, prompts, continuations);
    std::vector<Json> answers = collect(request.questions, continuations, scores, neutral);
    for (size_t i = 0; i < answers.size(); ++i) {
      answers[i]["rendered_prompt"] = spelled(request.model, prompts[i]);
      const std::vector<int64_t> right = equal_options(request.questions[i]);
      if (right.size() > 1) answers[i]["right_options"] = right;
    }
    return answers;
  }

 private:
  static std::vector<Json> collect(const std::vector<Question>& questions,
                                   const std::vector<Continuation>& continuations, const std::vector<double>& scores,
                                   const NeutralScores& neutral) {
    std::vector<Json> answers;
    size_t next = 0;
    for (const Question& question : questions) {
      Json answer = {{"question_id", question.id},
                     {"prompt", question.text},
                     {"option_log_likelihood", Json::array()},
                     {"option_log_likelihood_neutral", Json::array()},
                     {"option_tokens", Json::array()},
                     {"option_bytes", Json::array()}};
      for (const std::string& option : question.options) {
        answer["option_log_likelihood"].push_back(finite(scores[next], option, question));
        answer["option_log_likelihood_neutral"].push_back(neutral.at(option));
        answer["option_tokens"].push_back(continuations[next].tokens.size());
        answer["option_bytes"].push_back(option.size());
        ++next;
      }
      answers.push_back(std::move(answer));
    }
    return answers;
  }
};

// Whether the first of the highest scores is a right option's.
bool best_is_right(const AnswerFields& answer, const std::vector<double>& scores) {
  const int64_t best = std::max_element(scores.begin(), scores.end()) - scores.begin();
  if (best == answer.gold_option(scores.size())) return true;
  if (!answer.has("right_options")) return false;
  const std::vector<double> right = answer.numbers("right_options");
  return std::find(right.begin(), right.end(), static_cast<double>(best)) != right.end();
}

std::vector<double> judge_likelihood(const AnswerFields& answer) {
  const std::vector<double> raw = answer.numbers("option_log_likelihood");
  const std::vector<double> tokens = answer.numbers("option_tokens");
  if (tokens.size() != raw.size())
    answer.fail("option_tokens", fmt::format("has {} entries for {} options", tokens.size(), raw.size()));
  std::vector<double> per_token;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (tokens[i] < 1) answer.fail("option_tokens", fmt::format("counts {} tokens", tokens[i]));
    per_token.push_back(raw[i] / tokens[i]);
  }
  double calibrated = std::numeric_limits<double>::quiet_NaN();
  if (answer.has("option_log_likelihood_neutral")) {
    const std::vector<double> neutral = answer.numbers("option_log_likelihood_neutral");
    if (neutral.size() != raw.size()) {
      answer.fail("option_log_likelihood_neutral",
                  fmt::format("has {} entries for {} options", neutral.size(), raw.size()));
    }
    std::vector<double> gain;
    for (size_t i = 0; i < raw.size(); ++i) gain.push_back(raw[i] - neutral[i]);
    calibrated = is_true(best_is_right(answer, gain));
  }
  return {is_true(best_is_right(answer, per_token)), is_true(best_is_right(answer, raw)), calibrated};
}

KVC_REGISTER_TASK(Likelihood, "likelihood", "ranking of options by log-likelihood (arXiv:2005.14165)");
KVC_REGISTER_METRICS("likelihood", one_by_one<judge_likelihood>,
                     {{"accuracy", "accuracy, by log-likelihood per token", true, true},
                      {"accuracy_raw", "accuracy, by summed log-likelihood", true, true},
                      {"accuracy_calibrated", "accuracy, by gain over no document", true, true}});

}  // namespace
}  // namespace kvc
