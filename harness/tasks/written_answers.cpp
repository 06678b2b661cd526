#include "harness/tasks/written_answers.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "harness/api/context.h"
#include "harness/core/stable_hash.h"

namespace kvc {

std::vector<std::vector<int64_t>> make_prompts(const Model& model, const std::vector<Ask>& asks) {
  std::vector<std::vector<int64_t>> prompts;
  for (const Ask& ask : asks) {
    prompts.push_back(make_question_prompt(model, ask.user_text, ask.answer_prefix));
    if (ask.answer_prefix.empty()) continue;
    // The answer's first words must not be the first words of a thought.
    std::vector<int64_t> closed = make_question_prompt(model, ask.user_text, "");
    if (!close_thought(model, closed)) continue;
    const std::vector<int64_t> words = model.tokenizer().encode_text(ask.answer_prefix);
    closed.insert(closed.end(), words.begin(), words.end());
    prompts.back() = std::move(closed);
  }
  return prompts;
}

bool opens_thought(const Model& model, const std::vector<int64_t>& prompt) {
  const std::string text = spelled(model, prompt);
  const size_t last = text.find_last_not_of(" \t\r\n");
  if (last != std::string::npos && std::string_view(text).substr(0, last + 1).ends_with("<think>")) return true;
  // As tokens, so that a question about "<think>" does not count.
  const auto single = [&](const char* name) {
    const std::vector<int64_t> tokens = model.tokenizer().encode({{name, true}});
    return tokens.size() == 1 ? tokens[0] : -1;
  };
  const int64_t open = single("<think>"), close = single("</think>");
  for (size_t i = prompt.size(); i-- > 0 && open >= 0;) {
    if (prompt[i] == close) return false;
    if (prompt[i] == open) return true;
  }
  return false;
}

bool close_thought(const Model& model, std::vector<int64_t>& prompt) {
  if (!opens_thought(model, prompt)) return false;
  const std::vector<int64_t> end = model.tokenizer().encode({{"\n", false}, {"</think>", true}, {"\n\n", false}});
  prompt.insert(prompt.end(), end.begin(), end.end());
  return true;
}

void sample_as_proposed(const Model& model, DecodeSettings& settings) {
  const SamplingDefaults& proposed = model.sampling_defaults();
  if (!proposed.do_sample.value_or(true)) return;
  const bool any = proposed.temperature || proposed.top_k || proposed.top_p || proposed.min_p;
  settings.temperature = any ? proposed.temperature.value_or(1.0) : 0.0;
  settings.top_k = proposed.top_k.value_or(0);
  settings.top_p = proposed.top_p.value_or(1.0);
  settings.min_p = proposed.min_p.value_or(0.0);
}

std::string spelled(const Model& model, const std::vector<int64_t>& tokens) {
  std::string text;
  for (const int64_t token : tokens) text += model.tokenizer().token_bytes(token);
  return text;
}

std::vector<std::uint64_t> question_seeds(const std::vector<Question>& questions, std::uint64_t seed) {
  std::vector<std::uint64_t> seeds;
  for (const Question& question : questions) seeds.push_back(derive_seed(seed, "answer/" + question.id));
  return seeds;
}

namespace {

Json answer_of(const Model& model, const Question& question, const Ask& ask, const std::vector<int64_t>& prompt,
               const Generation& written) {
  Json answer = Json::object();
  answer["question_id"] = question.id;
  answer["prompt"] = ask.user_text;
  answer["rendered_prompt"] = spelled(model, prompt);
  answer["text"] = written.text;
  answer["stop_reason"] = written.stop_reason;
  answer["n_tokens"] = written.tokens.size();
  if (written.thinking_tokens > 0) {
    answer["thinking_tokens"] = written.thinking_tokens;
    answer["thinking_cut"] = written.thinking_cut;
  }
  if (opens_thought(model, prompt)) answer["prompt_opens_thought"] = true;
  return answer;
}

}  // namespace

std::vector<Json> WritingTask::ask(const AskRequest& request) const {
  return std::move(ask_together({request}).front());
}

Task::Batch WritingTask::batch(const Model& model, const std::vector<Question>& questions) const {
  Batch most;
  for (const Writing& writing : writings(model, questions)) {
    most.sequences = std::max(most.sequences, static_cast<int64_t>(writing.questions.size()));
    for (const std::vector<int64_t>& prompt : make_prompts(model, writing.asks)) {
      most.tokens = std::max(most.tokens, static_cast<int64_t>(prompt.size()) + writing.settings.max_new_tokens);
    }
  }
  return most;
}

std::vector<std::vector<Json>> WritingTask::ask_together(const std::vector<AskRequest>& requests) const {
  if (requests.empty()) return {};
  const Model& model = requests.front().model;
  const std::vector<Question>& questions = requests.front().questions;
  std::vector<std::vector<Json>> texts(requests.size());
  for (const Writing& writing : writings(model, questions)) {
    const std::vector<std::vector<int64_t>> prompts = make_prompts(model, writing.asks);
    const std::vector<std::uint64_t> seeds = question_seeds(writing.questions, requests.front().seed);
    std::vector<PrefixPrompts> parts;
    for (const AskRequest& request : requests) parts.push_back({request.cache, prompts, seeds});
    const std::vector<std::vector<Generation>> written = generate(model, parts, writing.settings);
    for (size_t r = 0; r < requests.size(); ++r) {
      for (size_t i = 0; i < prompts.size(); ++i)
        texts[r].push_back(answer_of(model, writing.questions[i], writing.asks[i], prompts[i], written[r][i]));
    }
  }
  std::vector<std::vector<Json>> answers;
  for (std::vector<Json>& own : texts) answers.push_back(finish(questions, std::move(own)));
  return answers;
}

}  // namespace kvc
