// Queries of the context itself: those of every token from the article's first to the end of the context, template
// suffix included, as the model reads the context once more from its start. Cheap (one prefill), a little behind the
// other sources in the literature (arXiv:2602.16284).
//
// Fits (attention_matching) use them without a causal mask: a query also serves entries behind its own position. Scores
// by attention weights mask those entries, as the model does (the methods' `softmax_over: text`).
//
// On-policy the tokens still attend among themselves, as a token of the context has nothing compacted in front of it:
// the queries are those of off-policy, made layer by layer. Where the context is a slice of a longer text
// (Context::first_position), its tokens are read behind the template alone, at the positions that their keys have.
#include <ATen/ATen.h>

#include "harness/api/query_source.h"
#include "harness/queries/read_queries.h"
#include "harness/queries/text_options.h"

namespace kvc {
namespace {

class ContextPrefill final : public QuerySource {
 public:
  struct Options : TextQueryOptions {
    void fields(auto&& visit) {
      visit("max_queries", max_queries, "reference queries per KV head; more tokens are subsampled at random");
      visit("on_policy", on_policy,
            "layer by layer; the context's tokens attend among themselves, so the queries are the same");
    }
    void check(const OptionCheck& fail) const { check_text(fail); }
  };
  explicit ContextPrefill(const Options& options) : options_(options) {}

  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    const Context& context = request.context;
    QueryText text;
    text.is_context = true;
    if (static_cast<int64_t>(context.tokens.size()) < request.cache.next_position()) {
      text.behind = std::make_shared<const KvCache>(template_before(request));
      text.sequences = {context.article_tokens()};
    } else {
      text.behind = std::make_shared<const KvCache>(request.model.decoder().empty_cache());
      text.sequences = {context.tokens};
      text.n_skipped = context.prefix_len;
    }
    return read_queries(request, std::move(text), {options_.max_queries, options_.on_policy, "context_prefill"});
  }

 private:
  // The entries of the template in front of a slice; what comes next has the position of the slice's first token.
  static KvCache template_before(const QueryRequest& request) {
    const int64_t n_entries = request.context.prefix_len;
    std::vector<LayerKv> layers;
    for (int64_t i = 0; i < request.cache.n_layers(); ++i) {
      const LayerKv& layer = request.cache.layer(i);
      std::vector<HeadEntries> heads;
      for (int64_t head = 0; head < layer.n_kv_heads(); ++head) heads.push_back(layer.head(head).slice(0, n_entries));
      layers.push_back(pack_heads(heads));
    }
    return {std::move(layers), n_entries + request.context.first_position};
  }

  Options options_;
};

KVC_REGISTER_QUERIES(ContextPrefill, "context_prefill", "arXiv:2602.16284, context-prefill");

}  // namespace
}  // namespace kvc
