// Heavy hitters and recent entries; each evicted entry is merged, key and value, into the kept one with the most
// similar key, when it is similar enough; no bias. Wan et al., "D2O: Dynamic Discriminative Operations for Efficient
// Long-Context Inference of Large Language Models", arXiv:2406.13035.
//
//   u_i = max_c cos(k_i, k_c) over the kept entries c, reached at c(i)
//   entry i is merged into c(i) if u_i >= threshold = mean_i u_i, otherwise it is lost
//   k_c <- (e k_c + sum_i exp(u_i) k_i) / (e + sum_i exp(u_i)), sums over the entries merged into c; v_c likewise
//
// Who stays is decided by the mean attention weight over the reference queries, scored as in h2o: with the queries of
// context_prefill under the causal mask, as a share of all that a query attends to (`softmax_over: text`; `article`
// renormalises over the compactable entries, without a mask).
//
// Differences from the paper: after the context it goes on evicting while it generates, the threshold being a moving
// average; here the cut is made once and the threshold is its first value. Each head decides for itself (the authors'
// code averages u over heads and its weights are u_i over plain counts; the formula above is the paper's). The paper's
// other half, a budget for each layer from the variance of its attention, is a matter of the budget. Keys are rotated
// ones, as in the paper. A kept entry keeps its old bias; an old bias b makes an entry count exp(b) times in a mean, as
// equal entries would.
#include <ATen/ATen.h>

#include <algorithm>

#include "methods/parts/heavy_hitters.h"
#include "methods/parts/merging.h"

namespace kvc {
namespace {

// Evicted entries at a time: their similarities to some thousand kept ones stay small.
constexpr int64_t kBlock = 512;

class D2o final : public HeavyHitters {
 public:
  struct Options : HeavyHitters::Options {
    Options() { recent_fraction = 0.25; }
  };
  explicit D2o(const Options& options) : HeavyHitters(options), options_(options) {}

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    constexpr double kTiny = 1e-12;  // a key of zeros is similar to nothing
    const at::Tensor keys = problem.keys.to(at::kFloat);
    const at::Tensor directions = keys.div(keys.norm(2, 1, /*keepdim=*/true).clamp_min(kTiny));
    return [this, problem, directions, scores = scores_once(problem)](int64_t target_len) {
      const at::Tensor kept = heavy_and_recent(scores, target_len, options_.recent_fraction);
      const Split split = split_entries(kept, scores.size(0));
      HeadFit fit = keep(problem, split.kept);
      fit.notes = reach_notes(problem, range_);
      if (split.evicted.size(0) > 0) merge_entries(problem, directions, split, fit);
      return fit;
    };
  }

 private:
  static void merge_entries(const HeadProblem& problem, const at::Tensor& directions, const Split& split,
                            HeadFit& fit) {
    const auto [similarity, nearest] = most_similar(directions, split);
    const at::Tensor merged = similarity.ge(similarity.mean()).nonzero().flatten();
    const at::Tensor entries = split.evicted.index_select(0, merged);
    const at::Tensor group = nearest.index_select(0, merged);
    // exp(u + b_i - b_c): the kept entry's own weight is e.
    at::Tensor exponents = similarity.index_select(0, merged);
    if (problem.bias.defined()) {
      const at::Tensor bias = problem.bias.to(at::kDouble);
      exponents = exponents + bias.index_select(0, entries) - bias.index_select(0, split.kept).index_select(0, group);
    }
    // Relative to the largest weight of the group, so that no old bias overflows.
    const int64_t n_groups = split.kept.size(0);
    const at::Tensor largest =
        at::ones({n_groups}, exponents.options()).scatter_reduce(0, group, exponents, "amax", /*include_self=*/true);
    const at::Tensor weights = (exponents - largest.index_select(0, group)).exp().unsqueeze(1);
    const at::Tensor own = (1 - largest).exp().unsqueeze(1);
    const at::Tensor total = own + group_sums(weights, group, n_groups);
    const auto mean = [&](const at::Tensor& all, const at::Tensor& kept) {
      const at::Tensor rows = all.index_select(0, entries).to(at::kDouble) * weights;
      return ((kept.to(at::kDouble) * own + group_sums(rows, group, n_groups)) / total).to(all.scalar_type());
    };
    fit.keys = mean(problem.keys, fit.keys);
    fit.values = mean(problem.values, fit.values);
    fit.notes["merged_entries"] = merged.size(0);
  }

  // For every evicted entry the largest cosine with a kept key, float64, and the number of that kept entry.
  static std::pair<at::Tensor, at::Tensor> most_similar(const at::Tensor& directions, const Split& split) {
    const at::Tensor kept = directions.index_select(0, split.kept).t();
    std::vector<at::Tensor> similarity, nearest;
    for (int64_t first = 0; first < split.evicted.size(0); first += kBlock) {
      const int64_t n = std::min(kBlock, split.evicted.size(0) - first);
      const at::Tensor block = directions.index_select(0, split.evicted.narrow(0, first, n));
      const auto [largest, where] = at::mm(block, kept).max(1);
      similarity.push_back(largest);
      nearest.push_back(where);
    }
    return {at::cat(similarity).to(at::kDouble), at::cat(nearest)};
  }

  Options options_;
};

KVC_REGISTER_METHOD(D2o, "d2o", "arXiv:2406.13035");

}  // namespace
}  // namespace kvc
