// Asking questions in words and letting the model write: what the tasks that store a text share.
#pragma once

#include <string>
#include <vector>

#include "harness/api/task.h"
#include "harness/model/continuation.h"
#include "harness/model/generate.h"

namespace kvc {

// A user turn, and the first words of the answer, given to the model.
struct Ask {
  std::string user_text;
  std::string answer_prefix;
};

std::vector<std::vector<int64_t>> make_prompts(const Model& model, const std::vector<Ask>& asks);

// What the model reads behind the document, special tokens spelt out: stored as "rendered_prompt" of each answer.
std::string spelled(const Model& model, const std::vector<int64_t>& tokens);

// Whether the prompt ends inside a thought: its last <think> is not closed.
bool opens_thought(const Model& model, const std::vector<int64_t>& prompt);

// Ends the thought that a prompt has opened, with nothing thought: "\n</think>\n\n" is put behind it. For what is
// scored or begun as the answer itself. Returns false, and changes nothing, where the prompt opens no thought.
bool close_thought(const Model& model, std::vector<int64_t>& prompt);

// The sampling that the model's makers propose (generation_config.json); greedy where they propose none.
void sample_as_proposed(const Model& model, DecodeSettings& settings);

// A seed for each question, by its id: a question's answer does not depend on which others are asked.
std::vector<std::uint64_t> question_seeds(const std::vector<Question>& questions, std::uint64_t seed);

// Questions that are written in one batch.
struct Writing {
  std::vector<Question> questions;
  std::vector<Ask> asks;  // of each question
  DecodeSettings settings;
};

// A task whose answers are texts that the model writes: it says what to write, and makes its answers of the texts. The
// questions of several caches are written in one batch.
class WritingTask : public Task {
 public:
  std::vector<Json> ask(const AskRequest& request) const final;
  Batch batch(const Model& model, const std::vector<Question>& questions) const final;
  std::vector<std::vector<Json>> ask_together(const std::vector<AskRequest>& requests) const final;

 protected:
  // One batch after the other.
  virtual std::vector<Writing> writings(const Model& model, const std::vector<Question>& questions) const = 0;
  // `texts`: of all writings, one after the other, an object per question: {question_id, prompt (user turn),
  // rendered_prompt, text, stop_reason ("end" or "length"), n_tokens (written, without the end token)}; where the model
  // thought, thinking_tokens and thinking_cut (at the budget); where the prompt ended inside a thought,
  // prompt_opens_thought. Where the answer's first words are given, a thought that the prompt opens is closed before
  // them.
  virtual std::vector<Json> finish(const std::vector<Question>& questions, std::vector<Json> texts) const = 0;
};

}  // namespace kvc
