// Queries of the context itself: those of every token from the article's first to the end of the context, template
// suffix included. A sweep takes them while it reads the context, at no cost; where the cache is there already, the
// model reads the context once more from its start (one prefill). A little behind the other sources in the literature
// (arXiv:2602.16284).
//
// Fits (attention_matching) use them without a causal mask: a query also serves entries behind its own position. Scores
// by attention weights mask those entries, as the model does (the methods' `softmax_over: text`).
//
// On-policy the tokens still attend among themselves, as a token of the context has nothing compacted in front of it:
// the queries are those of off-policy, made layer by layer. Where the context is a slice of a longer text
// (Context::first_position), its tokens are read behind the template alone, at the positions that their keys have.
#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "harness/api/query_source.h"
#include "harness/queries/captured_queries.h"
#include "harness/queries/read_queries.h"
#include "harness/queries/text_options.h"

namespace kvc {
namespace {

// RoPE positions of the context's tokens behind the template's first ones.
std::vector<int64_t> positions_behind_template(const Context& context) {
  std::vector<int64_t> positions(context.tokens.size() - static_cast<size_t>(context.prefix_len));
  std::iota(positions.begin(), positions.end(), context.prefix_len);
  return positions;
}

class ContextListener final : public QueryListener {
 public:
  ContextListener(const Decoder& decoder, const Context& context, int64_t max_queries, std::uint64_t seed)
      : n_skipped_(context.prefix_len),
        capture_(decoder, positions_behind_template(context), max_queries, seed, "context_prefill") {}

  void take(int64_t layer, int64_t first_token, const at::Tensor& queries) override {
    const int64_t n_before = std::clamp<int64_t>(n_skipped_ - first_token, 0, queries.size(0));
    const int64_t n_new = queries.size(0) - n_before;
    if (n_new > 0) capture_.take(layer, first_token + n_before - n_skipped_, queries.narrow(0, n_before, n_new));
  }

  std::unique_ptr<LayerQueries> finish() override { return std::move(capture_).finish({}, n_skipped_); }

 private:
  int64_t n_skipped_;
  QueryCapture capture_;
};

class ContextPrefill final : public QuerySource {
 public:
  struct Options : TextQueryOptions {
    void fields(auto&& visit) {
      visit("max_queries", max_queries, "reference queries per KV head; more tokens are subsampled at random",
            at_least(1));
      visit("on_policy", on_policy,
            "layer by layer; the context's tokens attend among themselves, so the queries are the same");
    }
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

  std::unique_ptr<QueryListener> listen(const Model& model, const Context& context, std::uint64_t seed) const override {
    if (options_.on_policy || context.first_position > 0) return nullptr;
    return std::make_unique<ContextListener>(model.decoder(), context, options_.max_queries, seed);
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
