// Keeps the keys that differ most from the average one, values as they were, no bias; needs no queries. Park et al.,
// "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained
// Environments", arXiv:2504.15364.
//
//   anchor = mean_j k_j / |k_j|        score_i = -cos(k_i, anchor)
//
// `block` 0 scores all entries against each other and cuts once. With block > 0 the cut is made as the paper reads a
// prompt: the first t entries are there, and with every `block` further ones the t of highest score among those kept
// and those new are kept (kvpress's BlockPress, whose block is 128).
//
// Differences from the paper: the model has read the whole context before the first block is cut, so keys are those of
// the full cache, rotated as in the paper's code; a budget shared by score uses the scores of block 0. An old bias
// plays no part in the score.
#include <ATen/ATen.h>

#include <algorithm>

#include "methods/parts/key_selection.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

// Minus the cosine of each key (..., T, d) with the mean direction: (..., T) float32.
at::Tensor key_differences(const at::Tensor& some_keys) {
  constexpr double kTiny = 1e-12;  // a key or an anchor of zeros has cosine 0 with everything
  const at::Tensor keys = some_keys.to(at::kFloat);
  const at::Tensor directions = keys.div(keys.norm(2, -1, /*keepdim=*/true).clamp_min(kTiny));
  const at::Tensor anchor = directions.mean(-2, /*keepdim=*/true);
  const at::Tensor direction = anchor.div(anchor.norm(2, -1, /*keepdim=*/true).clamp_min(kTiny));
  return at::matmul(directions, direction.transpose(-2, -1)).squeeze(-1).neg_();
}

class KeyDiff final : public ScoredEntries {
 public:
  struct Options {
    int64_t block = 0;
    void fields(auto&& visit) {
      visit("block", block, "entries read from one cut to the next; 0: one cut at the end", at_least(0));
    }
  };
  explicit KeyDiff(const Options& options) : options_(options) {}

 protected:
  at::Tensor score_entries(const at::Tensor& keys, const at::Tensor& /*values*/,
                           const HeadProblem& /*any*/) const override {
    return key_differences(keys);
  }
  HeadFitter prepare(const HeadProblem& problem, int64_t largest_target_len) const override {
    if (options_.block == 0) return ScoredKeys::prepare(problem, largest_target_len);
    return [problem, block = options_.block](int64_t target_len) {
      const int64_t source_len = problem.keys.size(0);
      const at::TensorOptions index = problem.keys.options().dtype(at::kLong);
      at::Tensor kept = at::arange(target_len, index);
      for (int64_t first = target_len; first < source_len; first += block) {
        const at::Tensor there = at::cat({kept, at::arange(first, std::min(first + block, source_len), index)});
        const at::Tensor best = best_keys(key_differences(problem.keys.index_select(0, there)), target_len);
        kept = there.index_select(0, best);
      }
      return keep(problem, kept);
    };
  }

 private:
  Options options_;
};

KVC_REGISTER_METHOD(KeyDiff, "keydiff", "arXiv:2504.15364");

}  // namespace
}  // namespace kvc
