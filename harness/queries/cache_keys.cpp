// The cached keys of the article, rotated as they are, as queries of their own KV head. arXiv:2602.16284's code, cache
// keys; needs no pass of the model.
#include <ATen/ATen.h>

#include <algorithm>

#include "harness/api/query_source.h"
#include "harness/core/error.h"
#include "harness/model/elementwise.h"
#include "harness/queries/captured_queries.h"

namespace kvc {
namespace {

class CacheKeys final : public LayerQueries {
 public:
  explicit CacheKeys(std::vector<at::Tensor> layers) : layers_(std::move(layers)) {}

  at::Tensor layer(int64_t layer, const KvCache* /*compacted_below*/) const override {
    return layers_.at(static_cast<size_t>(layer));
  }
  at::Tensor window(int64_t /*layer*/, int64_t /*n_tokens*/) const override {
    throw Error(ErrorKind::kUsage, "cache_keys reads no text, so it has no last tokens", "queries",
                "take context_prefill or repeat_prefill for this method");
  }
  bool by_query_head() const override { return false; }
  int64_t n_queries() const override { return layers_.front().size(1); }
  int64_t bytes() const override {
    int64_t total = 0;
    for (const at::Tensor& queries : layers_) total += static_cast<int64_t>(queries.nbytes());
    return total;
  }

 private:
  std::vector<at::Tensor> layers_;  // (Hkv, n, d)
};

class CacheKeySource final : public QuerySource {
 public:
  struct Options {
    int64_t max_queries = 4096;
    bool q_norm = false;
    void fields(auto&& visit) {
      visit("max_queries", max_queries, "reference queries per KV head; more keys are subsampled at random",
            at_least(1));
      visit("q_norm", q_norm, "pass the keys through the model's norm over queries, where it has one (Qwen3)");
    }
  };
  explicit CacheKeySource(const Options& options) : options_(options) {}

  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    if (options_.q_norm && !request.model.spec().qk_norm) {
      throw Error(ErrorKind::kUsage, "cache_keys: the model has no norm over queries", "queries, q_norm",
                  "write q_norm: false");
    }
    int64_t n_queries = options_.max_queries;  // every head gives as many as the shortest has
    for (int64_t layer = 0; layer < request.cache.n_layers(); ++layer) {
      for (int64_t head = 0; head < request.cache.n_kv_heads(); ++head) {
        n_queries = std::min(n_queries, source_len(request, layer, head));
      }
    }
    if (n_queries < 1) {
      throw Error(ErrorKind::kData, "cache_keys: a KV head has no keys of the article", "queries",
                  "take another query source for this cache");
    }
    std::vector<at::Tensor> layers;
    for (int64_t layer = 0; layer < request.cache.n_layers(); ++layer)
      layers.push_back(draw(request, layer, n_queries));
    return std::make_unique<CacheKeys>(std::move(layers));
  }

 private:
  static int64_t source_len(const QueryRequest& request, int64_t layer, int64_t head) {
    return request.cache.layer(layer).head_len(head) - request.context.prefix_len - request.context.suffix_len;
  }

  // The same seed for all: heads of one length give the keys of the same tokens.
  at::Tensor draw(const QueryRequest& request, int64_t layer, int64_t n_queries) const {
    std::vector<at::Tensor> heads;
    for (int64_t head = 0; head < request.cache.n_kv_heads(); ++head) {
      const int64_t length = source_len(request, layer, head);
      const at::Tensor keys = request.cache.layer(layer).head_keys(head).narrow(0, request.context.prefix_len, length);
      const at::Tensor index = at::tensor(draw_sorted(length, n_queries, request.seed), at::TensorOptions(at::kLong));
      heads.push_back(keys.index_select(0, index.to(keys.device())));
    }
    const at::Tensor queries = at::stack(heads);
    if (!options_.q_norm) return queries;
    const at::Tensor& weight = request.model.decoder().weights().layers.at(static_cast<size_t>(layer)).q_norm;
    return rms_norm(queries.flatten(0, 1), weight, request.model.spec().rms_norm_eps).view(queries.sizes());
  }

  Options options_;
};

KVC_REGISTER_QUERIES(CacheKeySource, "cache_keys", "arXiv:2602.16284, cache keys");

}  // namespace
}  // namespace kvc
