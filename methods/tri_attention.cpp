// Keeps the entries to which the mean query will attend from the positions to come, and those of large keys where
// queries spread; values as they were, no bias. Mao et al., "TriAttention: Efficient Long Reasoning with Trigonometric
// KV Compression", arXiv:2604.04921.
//
// For each query head, with its queries before RoPE as complex pairs q_f, f = 1 .. d / 2, and p the next position:
//   distance_j = mean over offsets 1, 2, 4, .. max_offset of Re sum_f E[q_f] e^(i w_f (p + offset)) conj(k_jf)
//   norm_j     = sum_f (E|q_f| - |E[q_f]|) |k_jf|
//   score_j    = largest over the group of the sum of both, brought to mean 0 and variance 1 over the entries
//
// k_jf are rotated, as the cache holds them: their own positions are in their phase, so that a cache that was compacted
// before is scored like any other. (The authors' code turns them back first, and needs to know the positions.)
//
// Follows the authors' code (triattention/methods: every head for itself, scores normalised, the largest of a group;
// offsets up to 65536). Its means come from texts of a calibration set: {method: tri_attention, queries: {queries:
// calibration_text, file: FILE}}. By default they come from the text itself (context_prefill). Other queries must know
// their positions. An old bias plays no part.
#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "methods/parts/rotation.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

// |x_f| of rows whose pairs are the halves: (..., d / 2).
at::Tensor pair_norms(const at::Tensor& x) {
  const int64_t half = x.size(-1) / 2;
  return at::hypot(x.narrow(-1, 0, half), x.narrow(-1, half, half));
}

class TriAttention final : public ScoredKeys {
 public:
  struct Options {
    int64_t max_offset = 65536;
    bool norms = true;
    void fields(auto&& visit) {
      visit("max_offset", max_offset, "largest offset (1, 2, 4, ...) at which future queries are predicted",
            between(1, (1 << 20)));
      visit("norms", norms, "false: without the part that queries' spread gives to large keys");
    }
  };
  explicit TriAttention(const Options& options) : options_(options) {}

  std::string published_queries() const override { return "context_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    const at::Tensor queries = unrotated_queries(problem, "tri_attention");  // (g, n / g, d)
    const at::Tensor mean = queries.mean(1);                                 // (g, d)
    const at::Tensor keys = problem.keys.to(at::kFloat);
    at::Tensor scores = at::mm(ahead(mean, problem), keys.t());  // (g, T)
    if (options_.norms) {
      const at::Tensor spread = pair_norms(queries).mean(1) - pair_norms(mean);
      scores += at::mm(spread, pair_norms(keys).t());
    }
    const at::Tensor centred = scores - scores.mean(1, /*keepdim=*/true);
    const at::Tensor deviation = centred.square().mean(1, /*keepdim=*/true).sqrt_().clamp_min_(1e-6);
    return centred.div(deviation).amax(0);
  }

 private:
  // Rows (g, d) under the mean rotation of the offsets from the next position.
  at::Tensor ahead(const at::Tensor& rows, const HeadProblem& problem) const {
    std::vector<int64_t> positions;
    for (int64_t offset = 1; offset <= options_.max_offset; offset *= 2) {
      positions.push_back(problem.request->cache.next_position() + offset);
    }
    const Turn turn =
        turn_at(problem.request->model.spec(), at::tensor(positions, at::TensorOptions(at::kLong)), rows.options());
    return turned(rows, {turn.cos.mean(0), turn.sin.mean(0)}, 1);
  }

  Options options_;
};

KVC_REGISTER_METHOD(TriAttention, "tri_attention", "arXiv:2604.04921");

}  // namespace
}  // namespace kvc
