// Queries of some tokens put behind the context, at the positions where an answer will stand: what the model would look
// at from there, whatever it says. Tian, Su, Li, Zhang, "Where Matters More Than What: Decoding-aligned KV Cache
// Compression via Position-aware Pseudo Queries" (DapQ), arXiv:2603.11564. The paper adds up the attention of these
// queries: {method: h2o, recent_fraction: 0, queries: dapq}.
//
// The tokens are the context's own, n_first from its start and the others from its end; nothing is generated, and they
// are gone when the cache is compacted. The paper's window is 32 tokens; that 4 of them come from the start and 28 from
// the end is one of the divisions it names. Costs a forward pass of n_tokens.
#include "harness/api/query_source.h"
#include "harness/core/error.h"
#include "harness/queries/read_queries.h"

namespace kvc {
namespace {

class Dapq final : public QuerySource {
 public:
  struct Options {
    int64_t n_tokens = 32;
    int64_t n_first = 4;
    bool on_policy = false;
    void fields(auto&& visit) {
      visit("n_tokens", n_tokens, "tokens behind the context whose queries are taken", between(1, 4096));
      visit("n_first", n_first, "how many of them are the context's first; the others are its last",
            between(0, n_tokens));
      visit("on_policy", on_policy, "recompute each layer's queries on the compacted layers below");
    }
  };
  explicit Dapq(const Options& options) : options_(options) {}

  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    const std::vector<int64_t>& context = request.context.tokens;
    const int64_t n_last = options_.n_tokens - options_.n_first;
    if (static_cast<int64_t>(context.size()) < options_.n_tokens) {
      throw Error(ErrorKind::kData,
                  fmt::format("dapq takes {} tokens of a context that has {}", options_.n_tokens, context.size()),
                  "queries", fmt::format("n_tokens: {} or less, or a longer document", context.size()));
    }
    check_positions("dapq", request.cache.next_position() + options_.n_tokens, request.model.spec().max_positions,
                    "take context_prefill, ");
    std::vector<int64_t> tokens(context.begin(), context.begin() + options_.n_first);
    tokens.insert(tokens.end(), context.end() - n_last, context.end());
    QueryText text;
    text.sequences = {std::move(tokens)};
    const int64_t most = options_.n_tokens * request.model.spec().group_size();
    return read_queries(request, std::move(text), {most, options_.on_policy, "dapq"});
  }

 private:
  Options options_;
};

KVC_REGISTER_QUERIES(Dapq, "dapq", "arXiv:2603.11564");

}  // namespace
}  // namespace kvc
