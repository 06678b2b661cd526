// Queries of the model repeating the context: behind the full context stands the user turn "Repeat the previous context
// verbatim.", the assistant's header, and the article itself as the answer. Nothing is generated; the queries of every
// token after the context are taken. arXiv:2602.16284, repeat-prefill; the idea is KVzip's, arXiv:2505.23416.
//
// Needs positions for the article twice. Costs one prefill of the article over the cache of the context.
#include "harness/api/query_source.h"
#include "harness/queries/read_queries.h"
#include "harness/queries/text_options.h"

namespace kvc {
namespace {

class RepeatPrefill final : public QuerySource {
 public:
  using Options = TextQueryOptions;
  explicit RepeatPrefill(const Options& options) : options_(options) {}

  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    std::vector<int64_t> tokens = make_question_prompt(request.model, "Repeat the previous context verbatim.");
    const std::vector<int64_t> article = request.context.article_tokens();
    tokens.insert(tokens.end(), article.begin(), article.end());
    check_positions("repeat_prefill", request.cache.next_position() + static_cast<int64_t>(tokens.size()),
                    request.model.spec().max_positions, "take context_prefill, ");
    QueryText text;
    text.sequences = {std::move(tokens)};
    return read_queries(request, std::move(text), {options_.max_queries, options_.on_policy, "repeat_prefill"});
  }

 private:
  Options options_;
};

KVC_REGISTER_QUERIES(RepeatPrefill, "repeat_prefill", "arXiv:2602.16284, repeat-prefill");

}  // namespace
}  // namespace kvc
