#include "harness/tasks/written_answers.h"

#include "harness/api/context.h"
#include "harness/core/json_lines.h"

namespace kvc {

std::vector<std::vector<int64_t>> make_prompts(const Model& model, const std::vector<Ask>& asks) {
  std::vector<std::vector<int64_t>> prompts;
  for (const Ask& ask : asks) prompts.push_back(make_question_prompt(model, ask.user_text, ask.answer_prefix));
  return prompts;
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
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace kvc
