#include "harness/tasks/written_answers.h"

#include <string_view>

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

std::vector<Json> write_answers(const AskRequest& request, const std::vector<Ask>& asks,
                                const DecodeSettings& settings) {
  const std::vector<std::vector<int64_t>> prompts = make_prompts(request.model, asks);
  const std::vector<Generation> generations =
      generate(request.model, request.cache, prompts, settings, question_seeds(request.questions, request.seed));
  std::vector<Json> answers;
  for (size_t i = 0; i < generations.size(); ++i) {
    Json answer = Json::object();
    answer["question_id"] = request.questions[i].id;
    answer["prompt"] = asks[i].user_text;
    answer["rendered_prompt"] = spelled(request.model, prompts[i]);
    answer["text"] = generations[i].text;
    answer["stop_reason"] = generations[i].stop_reason;
    answer["n_tokens"] = generations[i].tokens.size();
    if (generations[i].thinking_tokens > 0) {
      answer["thinking_tokens"] = generations[i].thinking_tokens;
      answer["thinking_cut"] = generations[i].thinking_cut;
    }
    if (opens_thought(request.model, prompts[i])) answer["prompt_opens_thought"] = true;
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace kvc
