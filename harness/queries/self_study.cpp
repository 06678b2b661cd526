// Queries of the model studying the context: it summarises, restructures and questions what it has read, in
// conversations that each stand alone behind the context; the queries of every token of prompt and answer are taken.
// arXiv:2602.16284, self-study; the conversations are those of Cartridges, arXiv:2506.06266.
//
// Two roles of the model: A makes up questions, B answers them and the fixed prompts. What is read for queries are the
// tokens as they were written, never their text read anew. All texts stand in the notes of the records, and `replay`
// reads them back: the same queries without writing anything.
#include <fmt/format.h>

#include <algorithm>

#include "harness/api/query_source.h"
#include "harness/api/special_needs.h"
#include "harness/core/error.h"
#include "harness/queries/read_queries.h"
#include "harness/queries/study_conversations.h"
#include "harness/queries/study_writer.h"
#include "harness/queries/text_options.h"

namespace kvc {
namespace {

class SelfStudy final : public QuerySource, public SpecialNeeds {
 public:
  struct Options : TextQueryOptions {
    std::vector<std::string> conversations = {"summarize", "aggregate", "structure_json", "3_question"};
    int64_t max_new_tokens = 0;
    bool thinking = true;
    std::string replay;

    void fields(auto&& visit) {
      TextQueryOptions::fields(visit);
      visit("conversations", conversations,
            "of question, 3_question, repeat, summarize, summarize_backward, structure_json, structure_yaml, "
            "aggregate, rephrase",
            one_of(study_kind_names()));
      visit("max_new_tokens", max_new_tokens,
            "tokens written by either role in one answer at most; 0: as published, 2,048 to 8,192", at_least(0));
      visit("thinking", thinking, "questions and their answers with thoughts, where the model has a thinking switch");
      visit("replay", replay,
            "file of an earlier run (texts/queries.jsonl) whose texts are used instead of writing new ones");
    }
    void check(const OptionCheck& fail) const {
      if (conversations.empty()) fail("conversations", "must name at least one; got []", "e.g. summarize");
      for (auto name = conversations.begin(); name != conversations.end(); ++name) {
        if (std::find(conversations.begin(), name, *name) != name) {
          return fail("conversations", fmt::format("has '{}' twice", *name), "keep one of them");
        }
      }
    }
  };
  explicit SelfStudy(const Options& options) : options_(options) {}

  std::string special_needs() const override { return "the model writes"; }
  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    const StudyKey key = StudyKey::of(request, options_.conversations);
    const StudyTexts texts =
        options_.replay.empty()
            ? write_study(request, {options_.conversations, options_.max_new_tokens, options_.thinking})
            : read_study(options_.replay, key, request);
    QueryText text;
    text.sequences = texts.sequences();
    text.notes = study_to_json(texts, key);
    return read_queries(request, std::move(text), {options_.max_queries, options_.on_policy, "self_study"});
  }

 private:
  Options options_;
};

KVC_REGISTER_QUERIES(SelfStudy, "self_study", "arXiv:2602.16284, self-study");

}  // namespace
}  // namespace kvc
