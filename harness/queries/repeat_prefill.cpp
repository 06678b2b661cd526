// Queries of the model repeating the context: behind the full context stands the user turn "Repeat the previous context
// verbatim.", the assistant's header, and the article itself as the answer. Nothing is generated; the queries of every
// token after the context are taken. arXiv:2602.16284, repeat-prefill; the idea is KVzip's, arXiv:2505.23416.
//
// Needs positions for the article twice. Costs one prefill of the article over the cache of the context.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>

#include "harness/api/query_source.h"
#include "harness/core/error.h"
#include "harness/queries/captured_queries.h"

namespace kvc {
namespace {

constexpr int64_t kChunkTokens = 1024;

std::string with_thousands(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

class RepeatPrefill final : public QuerySource {
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
  explicit RepeatPrefill(const Options& options) : options_(options) {}

  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    const c10::InferenceMode inference;
    const Decoder& decoder = request.model.decoder();
    std::vector<int64_t> tokens = make_question_prompt(request.model, "Repeat the previous context verbatim.");
    const std::vector<int64_t> article = request.context.article_tokens();
    tokens.insert(tokens.end(), article.begin(), article.end());
    const auto n_tokens = static_cast<int64_t>(tokens.size());
    check_positions(request.cache.next_position() + n_tokens, decoder.spec().max_positions);

    QueryCapture capture(decoder, n_tokens, options_.max_queries, request.seed, "repeat_prefill");
    Tails tails = Tails::behind(request.cache, 1, n_tokens);
    for (int64_t first = 0; first < n_tokens; first += kChunkTokens) {
      const int64_t end = std::min(first + kChunkTokens, n_tokens);
      const PackedTokens chunk = PackedTokens::single({tokens.begin() + first, tokens.begin() + end});
      decoder.forward(chunk, request.cache, tails,
                      [&](int64_t layer, const at::Tensor& queries) { capture.take(layer, first, queries); });
    }
    return std::move(capture).finish(request.cache.next_position());
  }

 private:
  static void check_positions(int64_t needed, int64_t available) {
    if (needed <= available) return;
    throw Error(ErrorKind::kData,
                fmt::format("repeat_prefill needs {} positions, the model has {}", with_thousands(needed),
                            with_thousands(available)),
                "queries", "take context_prefill, a shorter document or a model with a longer context");
  }

  Options options_;
};

KVC_REGISTER_QUERIES(RepeatPrefill, "repeat_prefill", "arXiv:2602.16284, repeat-prefill");

}  // namespace
}  // namespace kvc
