// What of a document's run other commands do too: its questions, its seeds, one compaction.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "harness/api/read_document.h"
#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/sweep/document_run.h"

namespace kvc {

std::vector<Question> accepted_questions(const Task& task, const Document& document) {
  std::vector<Question> list;
  std::copy_if(document.questions.begin(), document.questions.end(), std::back_inserter(list),
               [&](const Question& question) { return task.accepts(question); });
  return list;
}

std::uint64_t document_seed(std::uint64_t seed, const std::string& purpose, const std::string& document_id) {
  return derive_seed(seed, purpose + "/" + document_id);
}

Compaction compact_cell(const Model& model, const ReadDocument& read, const PlannedCell& cell,
                        const LayerQueries* queries, const std::string& document_id) {
  std::vector<HeadBudget> budgets;
  if (cell.cell.target)
    budgets.push_back(cell.budget->spread({*cell.cell.target, read.source_lengths(), read.entry_sizes()}));
  const std::uint64_t seed = document_seed(cell.cell.seed, "method", document_id);
  return std::move(read.compact(model, *cell.method, queries, std::move(budgets), seed).front());
}

void complete_answers(const std::vector<Question>& questions, std::vector<Json>& answers) {
  if (answers.size() != questions.size()) {
    throw Error(ErrorKind::kInternal,
                fmt::format("the task gave {} answers to {} questions", answers.size(), questions.size()), "",
                "mend the task's ask()");
  }
  for (size_t i = 0; i < answers.size(); ++i) {
    const Question& question = questions[i];
    answers[i]["question_id"] = question.id;
    if (question.gold_option) answers[i]["gold_option"] = *question.gold_option;
    if (!question.gold_answer.empty()) answers[i]["gold_answer"] = question.gold_answer;
    if (!question.other_answers.empty()) answers[i]["other_answers"] = question.other_answers;
    answers[i]["n_options"] = question.options.size();
    answers[i]["extra"] = question.extra;
  }
}

}  // namespace kvc
