// One question, asked of many caches of the same document, and judged.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/api/task.h"
#include "harness/tasks/judging/judge.h"

namespace kvc {

struct Reply {
  Json answer;       // as the task stores it
  double value = 0;  // primary metric of the task: 0, 1, or a mean of such
  bool right() const { return is_right(value); }
};

class Asker {
 public:
  // All must outlive this. `full`: the document's full cache, which the task may compare with. `seed`: of the answers,
  // as in the sweep. Throws Error(kUsage) for a task whose primary metric says nothing about right and wrong.
  Asker(const Model& model, const Task& task, std::string task_name, const Question& question, const KvCache& full,
        std::uint64_t seed);

  Reply ask(const KvCache& cache);
  int64_t n_asked() const { return n_asked_; }
  const Question& question() const { return questions_.front(); }
  const Model& model() const { return model_; }

 private:
  const Model& model_;
  const Task& task_;
  std::string task_name_;
  std::vector<Question> questions_;  // one
  std::uint64_t seed_;
  std::unique_ptr<TaskReference> reference_;
  int64_t n_asked_ = 0;
};

// What the model said, for people: a written reply, or the option of the highest score.
std::string reply_text(const Question& question, const Json& answer);

// What the model reads behind the document when it gives its answer: the prompt, then the answer's tokens.
struct ReadText {
  std::vector<int64_t> tokens;
  int64_t n_prompt = 0;
};
// `answer`: the full cache's, with the fields that every task stores (rendered_prompt, text; scored options: the right
// one is read).
ReadText read_text(const Model& model, const Question& question, const Json& answer);

// How much likelier one reply is than another on some cache.
class AnswerMargin {
 public:
  // `full`, `compact`: what the two caches answered.
  AnswerMargin(const Model& model, const Question& question, const Json& full, const Json& compact);

  // Nats, as in TieFacts; nothing where the two replies cannot be compared. `answer`: what was answered on `cache`.
  // Written replies cost one pass over the prompt.
  std::optional<double> on(const KvCache& cache, const Json& answer) const;

 private:
  const Model& model_;
  std::vector<int64_t> read_;  // prompt, and the tokens that both replies begin with; empty: not comparable
  int64_t full_token_ = 0, compact_token_ = 0;
};

}  // namespace kvc
