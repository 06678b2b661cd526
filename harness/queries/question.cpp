// Queries of the question itself, as it is asked behind the context: what SnapKV (arXiv:2404.14469) and FINCH (TACL
// 2024) score by when they compact a prompt whose question is known. A cache made with them serves that question alone:
// a sweep compacts once for every question, and its tables show such rows apart, never ranked with methods that did not
// know what would be asked.
//
// The text is the question's prompt up to the assistant's header and the answer's first words. Methods with a window
// (snapkv: 64 tokens) need a question as long; window: 8 suits short ones. Costs a forward pass of the question.
#include "harness/api/query_source.h"
#include "harness/core/error.h"
#include "harness/queries/read_queries.h"
#include "harness/queries/text_options.h"

namespace kvc {
namespace {

class QuestionQueries final : public QuerySource {
 public:
  using Options = TextQueryOptions;
  explicit QuestionQueries(const Options& options) : options_(options) {}

  bool question_aware() const override { return true; }

  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    if (request.questions == nullptr || request.questions->empty()) {
      throw Error(ErrorKind::kUsage, "the query source 'question' reads the question, and here none is asked",
                  "queries", "take context_prefill, repeat_prefill or dapq; 'question' is for sweeps");
    }
    QueryText text;
    for (const Question& question : *request.questions) {
      text.sequences.push_back(make_question_prompt(request.model, question.text, question.answer_prefix));
      check_positions("question", request.cache.next_position() + static_cast<int64_t>(text.sequences.back().size()),
                      request.model.spec().max_positions, "take context_prefill, ");
    }
    return read_queries(request, std::move(text), {options_.max_queries, options_.on_policy, "question"});
  }

 private:
  Options options_;
};

KVC_REGISTER_QUERIES(QuestionQueries, "question", "arXiv:2404.14469");

}  // namespace
}  // namespace kvc
