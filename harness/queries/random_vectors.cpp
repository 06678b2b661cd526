// Queries that know nothing of the text: every component from a standard normal distribution, without rotation.
// arXiv:2602.16284, where they work but lag behind queries of a text.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "harness/api/query_source.h"
#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/model/elementwise.h"

namespace kvc {
namespace {

// Made anew for every call; only the seed is kept.
class RandomVectors final : public LayerQueries {
 public:
  RandomVectors(const Decoder& decoder, int64_t n_queries, bool q_norm, std::uint64_t seed)
      : decoder_(decoder), n_queries_(n_queries), q_norm_(q_norm), seed_(seed) {}

  at::Tensor layer(int64_t layer, const KvCache* /*compacted_below*/) const override {
    const DecoderSpec& spec = decoder_.spec();
    const at::Generator generator = at::detail::createCPUGenerator(derive_seed(seed_, fmt::format("layer {}", layer)));
    const at::Tensor drawn =
        at::randn({spec.n_kv_heads, n_queries_, spec.head_dim}, generator, at::kFloat).to(decoder_.options(layer));
    if (!q_norm_) return drawn;
    const at::Tensor& weight = decoder_.weights().layers.at(static_cast<size_t>(layer)).q_norm;
    return rms_norm(drawn.flatten(0, 1), weight, spec.rms_norm_eps).view(drawn.sizes());
  }

  at::Tensor window(int64_t /*layer*/, int64_t /*n_tokens*/) const override {
    throw Error(ErrorKind::kUsage, "random_vectors reads no text, so it has no last tokens", "queries",
                "take context_prefill or repeat_prefill for this method");
  }
  bool by_query_head() const override { return false; }
  int64_t n_queries() const override { return n_queries_; }
  int64_t bytes() const override { return 0; }

 private:
  Decoder decoder_;  // weights shared
  int64_t n_queries_;
  bool q_norm_;
  std::uint64_t seed_;
};

class RandomVectorSource final : public QuerySource {
 public:
  struct Options {
    int64_t max_queries = 4096;
    bool q_norm = false;
    void fields(auto&& visit) {
      visit("max_queries", max_queries, "reference queries per KV head, all of them held", between(1, 65536));
      visit("q_norm", q_norm, "pass the vectors through the model's norm over queries, where it has one (Qwen3)");
    }
  };
  explicit RandomVectorSource(const Options& options) : options_(options) {}

  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    if (options_.q_norm && !request.model.spec().qk_norm) {
      throw Error(ErrorKind::kUsage, "random_vectors: the model has no norm over queries", "queries, q_norm",
                  "write q_norm: false");
    }
    return std::make_unique<RandomVectors>(request.model.decoder(), options_.max_queries, options_.q_norm,
                                           request.seed);
  }

 private:
  Options options_;
};

KVC_REGISTER_QUERIES(RandomVectorSource, "random_vectors", "arXiv:2602.16284, random vectors");

}  // namespace
}  // namespace kvc
