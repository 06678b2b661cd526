// A problem thought through under a hard limit on the cache, which is compacted online when it is full, or every so
// many tokens (the cell's method, queries, budget and target), then a short answer. Prompt and forced answer: Attention
// Matching's evaluation on AIME, arXiv:2602.16284. Document and question are one user turn, since nothing is read
// before.
//
// Fields of an answer: prompt (the user turn), rendered_prompt, prompt_tokens, limit, decode, answer_form ("math" where
// the question's extra says so: any mathematical answer, else an integer from 0 to 999), samples[]: seed, text
// (all behind the prompt, what was put in included), stop_reason of the thought ("end", "stop" at </think>, "limit",
// "length"), forced, answer_stop_reason, n_tokens, thought_tokens, next_position, peak_entries (per head),
// final_entries (over all heads), final_bytes, compactions[] (position, entries_before, entries_after, drift_kl,
// seconds, notes).
//
// Metrics, means over `samples`:
// - accuracy: 1 if the number behind the thought (thought.h, parse_integer) is gold_answer; with answer_form "math" if
//   gives_math_answer; parse_rate: 1 if there is an answer
// - length_limit_rate: 1 if stop_reason is "limit" or "length": the answer was forced
// - compactions: their number; thought_tokens

#include <fmt/format.h>

#include <algorithm>

#include "harness/core/stable_hash.h"
#include "harness/tasks/judging/integer_answer.h"
#include "harness/tasks/judging/judge.h"
#include "harness/tasks/judging/math_answer.h"
#include "harness/tasks/judging/thought.h"
#include "harness/tasks/online_writer.h"
#include "harness/tasks/sampling_choice.h"

namespace kvc {
namespace {

class Reasoning final : public Task {
 public:
  struct Options : SamplingChoice {
    int64_t limit = 2048;
    int64_t compactions = 6;
    int64_t every = 0;
    int64_t protected_tokens = 20;
    bool protect_prompt = false;
    int64_t samples = 1;
    int64_t max_new_tokens = 0;
    int64_t answer_tokens = 16;
    bool drift = true;

    void fields(auto&& visit) {
      constexpr int64_t kMost = 100'000'000;
      visit("limit", limit, "most cache entries per head at any step, prompt included (mean over ragged heads)",
            between(1, kMost));
      visit("compactions", compactions, "most compactions at the limit; 0: none, the answer is forced there",
            between(0, 1'000'000));
      visit("every", every,
            "tokens from one compaction to the next, besides those at the limit, e.g. 128; 0: only at the limit",
            between(0, kMost));
      visit("protected_tokens", protected_tokens, "last tokens that a compaction leaves as they are",
            between(0, kMost));
      visit("protect_prompt", protect_prompt, "the prompt is left as it is too; as published it is compacted");
      visit("samples", samples, "texts written for each problem, each from a seed of its own: avg@k",
            between(1, 10'000));
      choice_fields(visit);
      visit("max_new_tokens", max_new_tokens, "longest thought; 0: as long as limit, compactions and positions allow",
            between(0, kMost));
      visit("answer_tokens", answer_tokens, "longest answer behind 'Final Answer: '", between(1, 100'000));
      visit("drift", drift,
            "KL against the uncompacted cache after each compaction; costs a prefill each time, outside the limit");
    }
    void check(const OptionCheck& fail) const {
      if (limit >= 1 && every >= limit) {
        fail("every", fmt::format("must be less than the limit of {}; got {}", limit, every),
             "write a larger limit, or every: 0 to compact at the limit alone");
      }
      if (limit >= 1 && protected_tokens >= limit) {
        fail("protected_tokens", fmt::format("must be less than the limit of {}; got {}", limit, protected_tokens),
             "write a larger limit, or fewer protected tokens");
      }
      SamplingChoice::check(fail);
      if (sampling == "own" && samples > 1 && temperature == 0) {
        fail("samples", "are all the same when greedy", "give a temperature, or samples: 1");
      }
    }
  };

  explicit Reasoning(Options options) : options_(std::move(options)) {}

  // Integers from 0 to 999, and what a data set of mathematical problems says has a mathematical answer.
  bool accepts(const Question& question) const override {
    if (question.gold_answer.empty()) return false;
    return is_math(question) ||
           (is_short_number(question.gold_answer) &&
            std::all_of(question.other_answers.begin(), question.other_answers.end(), is_short_number));
  }
  bool compacts_online() const override { return true; }

  std::vector<Json> ask(const AskRequest& request) const override {
    if (request.online == nullptr) {
      throw Error(ErrorKind::kInternal, "reasoning is asked without a method to compact with", "reasoning", "");
    }
    const OnlineSettings settings = settings_for(request.model);
    const std::vector<std::uint64_t> seeds = question_seeds(request.questions, request.seed);
    std::vector<Json> answers;
    for (size_t i = 0; i < request.questions.size(); ++i) {
      const std::string prompt = request.online->document + "\n\n" + request.questions[i].text;
      RenderOptions render;
      render.generation_prompt = true;
      const std::vector<int64_t> tokens =
          request.model.tokenizer().encode(request.model.chat_template().render({{"user", prompt}}, render));
      Json answer{{"question_id", request.questions[i].id},
                  {"prompt", prompt},
                  {"rendered_prompt", spelled(request.model, tokens)},
                  {"prompt_tokens", tokens.size()},
                  {"prompt_opens_thought", opens_thought(request.model, tokens)},
                  {"limit", settings.limit},
                  {"decode", settings.decode.to_json()},
                  {"samples", Json::array()}};
      if (is_math(request.questions[i])) answer["answer_form"] = "math";
      for (int64_t k = 0; k < options_.samples; ++k) {
        const std::uint64_t seed = k == 0 ? seeds[i] : derive_seed(seeds[i], fmt::format("sample/{}", k));
        answer["samples"].push_back(sample(request.model, *request.online, tokens, settings, seed));
      }
      answers.push_back(std::move(answer));
    }
    return answers;
  }

 private:
  static bool is_short_number(const std::string& text) {
    return !text.empty() && text.size() <= 3 &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  }
  static bool is_math(const Question& question) { return question.extra.value("answer_form", Json()) == Json("math"); }

  OnlineSettings settings_for(const Model& model) const {
    OnlineSettings settings;
    settings.limit = options_.limit;
    settings.max_compactions = options_.compactions;
    settings.every = options_.every;
    settings.protected_tokens = options_.protected_tokens;
    settings.protect_prompt = options_.protect_prompt;
    settings.answer_tokens = options_.answer_tokens;
    settings.drift = options_.drift;
    DecodeSettings& decode = settings.decode;
    decode.max_new_tokens = options_.max_new_tokens;
    options_.apply(model, decode);
    if (options_.samples > 1 && decode.temperature == 0) {
      throw Error(ErrorKind::kUsage,
                  fmt::format("{} samples of each problem are asked for, but the model's makers propose no sampling "
                              "(generation_config.json)",
                              options_.samples),
                  "reasoning", "write sampling: own and a temperature, or samples: 1");
    }
    return settings;
  }

  static Json sample(const Model& model, const OnlineCompaction& online, const std::vector<int64_t>& prompt,
                     const OnlineSettings& settings, std::uint64_t seed) {
    const OnlineText written = write_online(model, online, prompt, settings, seed);
    Json steps = Json::array();
    for (const OnlineStep& step : written.steps) steps.push_back(step.to_json());
    return {{"seed", seed},
            {"text", written.text},
            {"stop_reason", written.stop_reason},
            {"forced", written.forced},
            {"answer_stop_reason", written.answer_stop_reason},
            {"n_tokens", written.tokens.size()},
            {"thought_tokens", written.thought_tokens},
            {"next_position", written.next_position},
            {"peak_entries", written.peak_entries},
            {"final_entries", written.final_entries},
            {"final_bytes", written.final_bytes},
            {"compactions", std::move(steps)}};
  }

  Options options_;
};

struct JudgedText {
  bool right = false, answered = false;
};

JudgedText judge_text(const AnswerFields& answer, const std::string& text, bool cut) {
  const std::vector<std::string> golds = answer.right_answers();
  if (answer.has("answer_form")) {
    if (answer.text("answer_form") != "math") answer.fail("answer_form", "must be 'math'");
    return {std::any_of(golds.begin(), golds.end(),
                        [&](const std::string& gold) { return gives_math_answer(text, gold, cut); }),
            final_math_answer(text, cut).has_value()};
  }
  JudgedText judged;
  const auto number = parse_integer(text, cut);
  judged.answered = number.has_value();
  for (const std::string& gold : golds) {
    const auto right = parse_integer(gold);
    if (!right) answer.fail("gold_answer", "must be an integer from 0 to 999");
    judged.right = judged.right || number == right;
  }
  return judged;
}

std::vector<double> judge_reasoning(const AnswerFields& answer) {
  const bool opened = prompt_opens_thought(answer);
  const std::vector<AnswerFields> samples = answer.parts("samples");
  std::vector<double> means(5, 0.0);
  for (const AnswerFields& sample : samples) {
    const bool cut = sample.has("answer_stop_reason") && sample.text("answer_stop_reason") == "length";
    const JudgedText judged = judge_text(answer, without_thoughts(sample.text("text"), opened), cut);
    const std::string stop = sample.text("stop_reason");
    const std::vector<double> values = {
        is_true(judged.right), is_true(judged.answered), is_true(stop == "limit" || stop == "length"),
        static_cast<double>(sample.count("compactions")), static_cast<double>(sample.integer("thought_tokens", 0))};
    for (size_t i = 0; i < means.size(); ++i) means[i] += values[i] / static_cast<double>(samples.size());
  }
  return means;
}

KVC_REGISTER_TASK(Reasoning, "reasoning", "online compaction of arXiv:2602.16284");
KVC_REGISTER_METRICS("reasoning", one_by_one<judge_reasoning>,
                     {{"accuracy", "accuracy, mean over a problem's samples (avg@k)", true, true},
                      {"parse_rate", "texts with an answer", true, true},
                      {"length_limit_rate", "thoughts cut off by a limit", true, false},
                      {"compactions", "compactions per answer", false, false},
                      {"thought_tokens", "tokens of thought per answer", false, false}});

}  // namespace
}  // namespace kvc
