// Keeps what a window of last queries attends to and no later entry repeats, for text that a model writes to itself;
// values as they were, no bias. Cai et al., "R-KV: Redundancy-aware KV Cache Compression for Reasoning Models",
// arXiv:2505.24133.
//
//   importance_j = mean over the window of softmax_j(max over the group of q k_j / sqrt(d)), then the largest of
//                  `kernel` neighbours
//   redundancy_j = softmax_j(mean over all entries i of cos(k_i, k_j)), where i counts neither for itself nor for the
//                  last entry that is more like it than `similarity`
//   score_j = lambda importance_j - (1 - lambda) redundancy_j
//
// Follows the authors' code (rkv/compression/r1_kv.py and utils.py), which takes the last similar entry alone where the
// paper spares the last few, and the first entry where none is similar. lambda is 0.1 in published runs (TriAttention's
// comparison with it) and 0.07 in the class's own defaults.
//
// While the model writes (task `reasoning` with `every`), the window is the end of what was written and
// protected_tokens (8 or more) keeps its entries, as in the paper. Differences: otherwise the window is the end of
// whatever text the query source reads; weights are shares of all entries in front of the window; an old bias is part
// of the logit.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "methods/parts/query_reach.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

constexpr int64_t kRowBlock = 1024;  // similarities of so many entries at a time: 4 kRowBlock N bytes

// All entries of the head's cache; the article's begin at `first`.
struct WholeHead {
  at::Tensor keys, bias;
  int64_t first = 0, suffix_len = 0;
};

WholeHead whole_head(const HeadProblem& problem) {
  if (problem.request == nullptr) return {problem.keys, problem.bias, 0, 0};
  const LayerKv& layer = problem.request->cache.layer(problem.layer);
  const auto [prefix_len, suffix_len] = problem.request->compactable;
  return {layer.head_keys(problem.kv_head), layer.head_bias(problem.kv_head), prefix_len, suffix_len};
}

// Mean over rows i of cos(k_i, k_j): (N) float32.
at::Tensor mean_similarity(const at::Tensor& some_keys, double similarity) {
  const at::Tensor keys = some_keys.to(at::kFloat);
  const at::Tensor directions = keys.div(keys.norm(2, 1, /*keepdim=*/true).add_(1e-8));
  const int64_t n = keys.size(0);
  const at::Tensor place = at::arange(n, keys.options().dtype(at::kLong));
  at::Tensor sum = at::zeros({n}, keys.options());
  for (int64_t first = 0; first < n; first += kRowBlock) {
    const int64_t rows = std::min(kRowBlock, n - first);
    at::Tensor cosines = at::mm(directions.narrow(0, first, rows), directions.t());
    cosines.scatter_(1, place.narrow(0, first, rows).unsqueeze(1), 0);
    const at::Tensor last = at::where(cosines > similarity, place, at::zeros_like(place)).amax(1, /*keepdim=*/true);
    sum += cosines.scatter_(1, last, 0).sum(0);
  }
  return sum.div_(n);
}

class RKv final : public ScoredKeys {
 public:
  struct Options : QueryWindow {
    Options() : QueryWindow{8, 7} {}
    double lambda = 0.1;
    double similarity = 0.5;
    void fields(auto&& visit) {
      window_fields(visit);
      visit("lambda", lambda, "weight of importance against redundancy, 0 to 1", between(0, 1));
      visit("similarity", similarity, "cosine above which two keys are alike", between(-1, 1));
    }
  };
  explicit RKv(const Options& options) : options_(options) {}

  std::string published_queries() const override { return "context_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    const WholeHead whole = whole_head(problem);
    const int64_t n_entries = problem.keys.size(0);
    const at::Tensor redundancy = mean_similarity(whole.keys, options_.similarity).softmax(0);
    return importance(problem, whole)
        .narrow(0, whole.first, n_entries)
        .mul(options_.lambda)
        .sub_(redundancy.narrow(0, whole.first, n_entries), 1 - options_.lambda);
  }

 private:
  at::Tensor importance(const HeadProblem& problem, const WholeHead& whole) const {
    const int64_t in_front = whole.keys.size(0) - std::min(options_.window, whole.suffix_len);
    const at::Tensor queries = window_queries(problem, options_.window).to(at::kFloat);
    const at::Tensor keys = whole.keys.narrow(0, 0, in_front).to(at::kFloat);
    at::Tensor logits = at::mm(queries, keys.t()).div_(std::sqrt(static_cast<double>(keys.size(1))));
    if (whole.bias.defined()) logits += whole.bias.narrow(0, 0, in_front);
    const at::Tensor weights = logits.view({-1, options_.window, in_front}).amax(0).softmax(1).mean(0);
    if (options_.kernel == 1) return weights;
    return at::max_pool1d(weights.view({1, 1, -1}), {options_.kernel}, {1}, {options_.kernel / 2}).flatten();
  }

  Options options_;
};

KVC_REGISTER_METHOD(RKv, "r_kv", "arXiv:2505.24133");

}  // namespace
}  // namespace kvc
