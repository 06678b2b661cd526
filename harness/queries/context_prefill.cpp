// Queries of the context itself: those of every token from the article's first
// to the end of the context, template suffix included, as the model reads the
// context once more from its start. Cheap (one prefill), a little behind the
// other sources in the literature (arXiv:2602.16284).
//
// No causal mask is applied where they are used: a query also serves entries
// behind its own position.
//
// On-policy the tokens still attend among themselves, as a token of the context
// has nothing compacted in front of it: the queries are those of off-policy,
// made layer by layer. Where the context is a slice of a longer text, its
// tokens would stand at positions other than their keys', so such a request is
// refused.
#include <fmt/format.h>

#include "harness/api/query_source.h"
#include "harness/core/error.h"
#include "harness/queries/read_queries.h"
#include "harness/queries/text_options.h"

namespace kvc {
namespace {

class ContextPrefill final : public QuerySource {
public:
  struct Options : TextQueryOptions {
    void fields(auto &&visit) {
      visit("max_queries", max_queries,
            "reference queries per KV head; more tokens are subsampled at "
            "random");
      visit("on_policy", on_policy,
            "layer by layer; the context's tokens attend among themselves, so "
            "the queries are the same");
    }
    void check(const OptionCheck &fail) const { check_text(fail); }
  };
  explicit ContextPrefill(const Options &options) : options_(options) {}

  std::unique_ptr<LayerQueries>
  make(const QueryRequest &request) const override {
    const auto n_tokens = static_cast<int64_t>(request.context.tokens.size());
    if (n_tokens != request.cache.next_position()) {
      throw Error(ErrorKind::kUsage,
                  fmt::format("context_prefill reads a context of {} tokens "
                              "from its start, but the cache's text ends "
                              "at position {}",
                              n_tokens, request.cache.next_position()),
                  "queries",
                  "take repeat_prefill or self_study, which stand behind the "
                  "whole text");
    }
    QueryText text;
    text.sequences = {request.context.tokens};
    text.behind_context = false;
    text.n_skipped = request.context.prefix_len;
    return read_queries(
        request, std::move(text),
        {options_.max_queries, options_.on_policy, "context_prefill"});
  }

private:
  Options options_;
};

KVC_REGISTER_QUERIES(ContextPrefill, "context_prefill",
                     "arXiv:2602.16284, context-prefill");

} // namespace
} // namespace kvc
