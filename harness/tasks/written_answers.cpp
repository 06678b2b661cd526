#include "harness/tasks/written_answers.h"

#include "harness/api/context.h"
#include "harness/core/json_lines.h"

namespace kvc {

std::vector<std::vector<int64_t>> make_prompts(const Model& model, const std::vector<Ask>& asks) {
  std::vector<std::vector<int64_t>> prompts;
  for (const Ask& ask : asks) prompts.push_back(make_question_prompt(model, ask.user_text, ask.answer_prefix));
  return prompts;
}

std::vector<std::uint64_t> question_seeds(const std::vector<Question>& questions, std::uint64_t seed) {
  std::vector<std::uint64_t> seeds;
  for (const Question& question : questions) seeds.push_back(derive_seed(seed, "answer/" + question.id));
  return seeds;
}

std::vector<Json> write_answers(const AskRequest& request, const std::vector<Ask>& asks,
                                const DecodeSettings& settings) {
  const std::vector<Generation> generations = generate(request.model, request.cache, make_prompts(request.model, asks),
                                                       settings, question_seeds(request.questions, request.seed));
  std::vector<Json> answers;
  for (size_t i = 0; i < generations.size(); ++i) {
    Json answer = Json::object();
    answer["question_id"] = request.questions[i].id;
    answer["prompt"] = asks[i].user_text;
    answer["text"] = generations[i].text;
    answer["stop_reason"] = generations[i].stop_reason;
    answer["n_tokens"] = generations[i].tokens.size();
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace kvc
