// Keeps whole chunks of neighbouring entries, the same ones in every head of a layer, by another method's scores. Liu
// et al., "ChunkKV: Semantic-Preserving KV Cache Compression for Efficient Long-Context LLM Inference",
// arXiv:2502.00299.
//
// A chunk's score is the mean over its entries of the sum over the layer's heads; chunks of `chunk_length` begin with
// the article, the last one may be shorter. The scores are those of the method `scores`, asked with the outer cell's
// queries. Follows kvpress (ChunkKVPress, whose chunks have 20 tokens; the paper 10).
//
// Differences: a target that is no whole number of chunks takes the first entries of the next best chunk (kvpress keeps
// fewer entries instead). The paper's reuse of chunks from layer to layer is left out. Where the heads of a layer hold
// different numbers of entries (a cache compacted before) or the queries are on-policy, each head goes by its own
// scores, and the note heads_scored_alone counts them; so where a head comes without its model.
#include <ATen/ATen.h>

#include <algorithm>

#include "methods/parts/inner_scores.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

class ChunkKv final : public PerHeadMethod {
 public:
  struct Options {
    NestedPlugin scores{{{"method", "snapkv"}}};
    int64_t chunk_length = 20;
    void fields(auto&& visit) {
      visit("scores", scores, "method whose scores choose: {method: NAME, option: value}");
      visit("chunk_length", chunk_length, "entries of a chunk", at_least(1));
    }
    void complete(const std::string& pointer, Problems& problems) {
      InnerScores::complete(scores.value, "chunk_kv", pointer + "/scores", problems);
    }
  };
  explicit ChunkKv(const Options& options) : options_(options), inner_(options.scores.value) {}

  std::string published_queries() const override { return inner_.published_queries(); }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    const at::Tensor by_head = inner_.of_layer(problem);
    const at::Tensor sums = by_head.sum(0);
    const int64_t length = options_.chunk_length, source_len = sums.size(0);
    const int64_t n_chunks = (source_len + length - 1) / length;
    const at::TensorOptions index = problem.keys.options().dtype(at::kLong);
    const at::Tensor chunk = at::arange(source_len, index).div(length, "floor");
    const at::Tensor means = chunk_means(sums, length);
    // Rank of every entry's chunk, then its place in it: one order for all targets.
    const at::Tensor rank =
        at::empty({n_chunks}, index).index_copy(0, best_keys(means, n_chunks), at::arange(n_chunks, index));
    const at::Tensor order = at::argsort(rank.index_select(0, chunk) * source_len + at::arange(source_len, index));
    const bool alone = by_head.size(0) == 1 && (problem.request == nullptr || problem.request->cache.n_kv_heads() > 1);
    return [problem, order, alone](int64_t target_len) {
      HeadFit fit = keep(problem, order.narrow(0, 0, target_len));
      if (alone) fit.notes["heads_scored_alone"] = 1;
      return fit;
    };
  }

 private:
  // Means of every `length` scores, of the rest in the last: (chunks). The scores of a chunk are added one after
  // another on every device: index_add would let a GPU's additions race.
  static at::Tensor chunk_means(const at::Tensor& scores, int64_t length) {
    const int64_t source_len = scores.size(0), n_chunks = (source_len + length - 1) / length;
    const at::Tensor by_place =
        at::constant_pad_nd(scores, {0, n_chunks * length - source_len}).view({n_chunks, -1}).t();
    at::Tensor sums = at::zeros({n_chunks}, scores.options());
    for (int64_t i = 0; i < std::min(length, source_len); ++i) sums.add_(by_place[i]);
    const at::Tensor first = at::arange(n_chunks, scores.options().dtype(at::kLong)) * length;
    return sums.div_((source_len - first).clamp_max_(length).to(at::kFloat));
  }

  Options options_;
  InnerScores inner_;
};

KVC_REGISTER_METHOD(ChunkKv, "chunk_kv", "arXiv:2502.00299");

}  // namespace
}  // namespace kvc
