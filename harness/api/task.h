// How questions are asked of a cache. A task stores what came back, raw. What it is worth is judged later from the
// record alone, by the metrics that the task's file registers beside the task (harness/tasks/judging/judge.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/api/budget_rule.h"
#include "harness/api/compaction_method.h"
#include "harness/api/dataset.h"
#include "harness/core/registry.h"
#include "harness/kv/kv_cache.h"
#include "harness/model/model.h"

namespace kvc {

class Task;

// What a task keeps of the full cache's answers to compare others with; made once per document.
struct TaskReference {
  virtual ~TaskReference() = default;
  const Task* task = nullptr;             // that made it
  std::vector<std::string> question_ids;  // that it was made for
};

// What a task compacts with while the model writes: the cell's method and all that goes with it.
struct OnlineCompaction {
  const std::string& document;  // text that stands before the question; read as part of the prompt
  const CompactionMethod& method;
  const QuerySource* queries = nullptr;  // nullptr where the method asks for none
  std::optional<TargetSize> target;      // and budget: nothing where the method takes none
  const BudgetRule* budget = nullptr;
};

// Answers that the full cache gave in earlier runs to the same document on the same model, and the place for new ones.
// `asked` names all else that affects the answer: the question's tokens, the settings of decoding, a version of the
// task.
class KeptAnswers {
 public:
  virtual ~KeptAnswers() = default;
  virtual std::optional<Json> find(const Json& asked) = 0;
  virtual void keep(const Json& asked, const Json& answer) = 0;
};

struct AskRequest {
  const Model& model;
  const KvCache& cache;                    // of the document as the method left it; empty for tasks that compact online
  const std::vector<Question>& questions;  // of one document, each accepted by the task
  std::uint64_t seed = 0;
  const TaskReference* reference = nullptr;  // what reference() returned for this document
  const OnlineCompaction* online = nullptr;  // given to tasks that compact online
  Json* notes = nullptr;  // an object: what a task says of the document as a whole; goes to the record's task_notes
  KeptAnswers* kept = nullptr;  // for reference(); nullptr: every answer is made anew
};

class Task {
 public:
  virtual ~Task() = default;
  // False for a question that this task cannot ask; a data set with no question left is no cell.
  virtual bool accepts(const Question& question) const = 0;
  // True for a task that compacts while the model writes: the document is not compacted before.
  virtual bool compacts_online() const { return false; }
  // Asked once per document on the full cache, of a task that compacts online never; nullptr when the task compares
  // with nothing.
  virtual std::unique_ptr<TaskReference> reference(const AskRequest& /*on_full_cache*/) const { return nullptr; }
  // One JSON object per question, in their order, each with "question_id" and the fields the task's file documents.
  // All questions are asked together.
  virtual std::vector<Json> ask(const AskRequest& request) const = 0;

  // For tasks whose answers gain where several caches of one document are asked at once: each cache is asked alone
  // where `sequences` is 0.
  struct Batch {
    int64_t sequences = 0;  // that are decoded together for one cache
    int64_t tokens = 0;     // of the longest of them at its end, prompt included
  };
  virtual Batch batch(const Model& /*model*/, const std::vector<Question>& /*questions*/) const { return {}; }
  // What ask() gives for each of the requests, which differ in cache and notes only; bit by bit where all sequences are
  // at most Decoder::independent_rows().
  virtual std::vector<std::vector<Json>> ask_together(const std::vector<AskRequest>& requests) const {
    std::vector<std::vector<Json>> answers;
    for (const AskRequest& request : requests) answers.push_back(ask(request));
    return answers;
  }
};

// A task that keeps a Reference of the full cache and compares every other cache with it.
template <class Reference>
class ComparingTask : public Task {
 public:
  std::unique_ptr<TaskReference> reference(const AskRequest& on_full_cache) const final {
    auto kept = std::make_unique<Kept>(make_reference(on_full_cache));
    kept->task = this;
    for (const Question& question : on_full_cache.questions) kept->question_ids.push_back(question.id);
    return kept;
  }

  std::vector<Json> ask(const AskRequest& request) const final {
    const TaskReference* given = request.reference;
    const bool ours = given != nullptr && given->task == this &&
                      std::equal(given->question_ids.begin(), given->question_ids.end(), request.questions.begin(),
                                 request.questions.end(),
                                 [](const std::string& id, const Question& question) { return id == question.id; });
    if (ours) return compare(request, static_cast<const Kept*>(given)->reference);
    throw Error(ErrorKind::kInternal, "the task was asked without the reference of these questions", "",
                "pass what its reference() returned for the same document");
  }

 protected:
  virtual Reference make_reference(const AskRequest& on_full_cache) const = 0;
  // As ask(), of the questions that the reference was made for.
  virtual std::vector<Json> compare(const AskRequest& request, const Reference& reference) const = 0;

 private:
  struct Kept final : TaskReference {
    explicit Kept(Reference made) : reference(std::move(made)) {}
    Reference reference;
  };
};

#define KVC_REGISTER_TASK(Class, name, source) KVC_REGISTER(::kvc::Task, Class, name, source)

}  // namespace kvc
