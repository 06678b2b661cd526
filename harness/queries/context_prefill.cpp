// Queries of the context itself: those of every token from the article's first to the end of the context, template
// suffix included, as the model reads the context once more from its start. Cheap (one prefill), a little behind the
// other sources in the literature (arXiv:2602.16284).
//
// No causal mask is applied where they are used: a query also serves entries behind its own position.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "harness/api/query_source.h"
#include "harness/queries/captured_queries.h"

namespace kvc {
namespace {

class ContextPrefill final : public QuerySource {
 public:
  struct Options {
    int64_t max_queries = 4096;
    void fields(auto&& visit) {
      visit("max_queries", max_queries, "reference queries per KV head; more tokens are subsampled at random");
    }
    void check(const OptionCheck& fail) const {
      if (max_queries < 1) fail("max_queries", "is less than 1", "1 or more, e.g. 4096");
    }
  };
  explicit ContextPrefill(const Options& options) : options_(options) {}

  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    const c10::InferenceMode inference;
    const Context& context = request.context;
    const Decoder& decoder = request.model.decoder();
    const int64_t n_tokens = static_cast<int64_t>(context.tokens.size()) - context.prefix_len;
    QueryCapture capture(decoder, n_tokens, options_.max_queries, request.seed, "context_prefill");
    decoder.prefill(context.tokens, 1024, [&](int64_t layer, int64_t first_token, const at::Tensor& queries) {
      const int64_t n_before = std::clamp<int64_t>(context.prefix_len - first_token, 0, queries.size(0));
      const int64_t n_new = queries.size(0) - n_before;
      if (n_new > 0)
        capture.take(layer, first_token + n_before - context.prefix_len, queries.narrow(0, n_before, n_new));
    });
    return std::move(capture).finish(context.prefix_len);
  }

 private:
  Options options_;
};

KVC_REGISTER_QUERIES(ContextPrefill, "context_prefill", "arXiv:2602.16284, context-prefill");

}  // namespace
}  // namespace kvc
