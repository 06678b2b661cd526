// Neighbours with similar keys become one entry: a mean weighted by a Gaussian of the distance to the most attended
// key of the set; heavy hitters and recent entries stay as they are; no bias. Wang et al., "Model Tells You Where to
// Merge: Adaptive KV Cache Merging for LLMs on Long-Context Tasks", arXiv:2407.08454 (KVMerger).
//
//   a merging set S is a run of neighbours, each with a key similar (cosine) to the one before it
//   p = the entry of S with the most attention;  d_i = ||k_p - k_i||
//   w_i = exp(-d_i^2 / (2 sigma^2));  k <- sum_S w_i k_i / sum_S w_i, at the place of p; v likewise
//
// Attention: the mean weight over the reference queries, as in h2o (softmax_over as there).
//
// Differences from the paper: its threshold of similarity gives whatever size it gives; here the T - t most similar
// pairs of neighbours are joined, so that exactly t entries are left. Neighbours are so among the entries that may be
// merged: a protected one between them does not part them. The paper's sigma is defined by the weights that it is to
// give; here sigma is the mean d_i of the others in S over sqrt(2), so that w_i = exp(-(d_i / mean d)^2). How many
// entries are protected varies in the paper; half of what is kept here, half of them recent. Each head decides for
// itself. An entry with an old bias b counts exp(b) times, as equal entries would, and the merged one keeps p's.
// Authors' code was not found: a float64 loop is the judge.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "methods/parts/heavy_hitters.h"
#include "methods/parts/merging.h"

namespace kvc {
namespace {

class KvMerger final : public HeavyHitters {
 public:
  struct Options : SoftmaxRange {
    double protected_fraction = 0.5;
    double recent_fraction = 0.5;
    void fields(auto&& visit) {
      visit("protected_fraction", protected_fraction,
            "fraction of the kept entries that nothing is merged into, 0 to 1", between(0, 1));
      visit("recent_fraction", recent_fraction, "fraction of those that are the most recent ones, 0 to 1",
            between(0, 1));
      range_field(visit);
    }
  };
  explicit KvMerger(const Options& options) : HeavyHitters(options), options_(options) {}

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    const at::Tensor keys = problem.keys.to(at::kDouble), values = problem.values.to(at::kDouble);
    return [this, problem, keys, values, scores = scores_once(problem)](int64_t target_len) {
      const int64_t source_len = keys.size(0);
      if (target_len >= source_len) return keep(problem, at::arange(source_len, scores.options().dtype(at::kLong)));
      return merge(problem, keys, values, scores, target_len);
    };
  }

 private:
  HeadFit merge(const HeadProblem& problem, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& scores,
                int64_t target_len) const {
    // One set at least is left for those that are not protected.
    const auto n_protected =
        std::min(static_cast<int64_t>(std::floor(options_.protected_fraction * static_cast<double>(target_len))),
                 target_len - 1);
    const Split split = split_entries(heavy_and_recent(scores, n_protected, options_.recent_fraction), keys.size(0));
    const at::Tensor set = joined(keys.index_select(0, split.evicted), target_len - n_protected);
    const at::Tensor pivot = pivots(scores.index_select(0, split.evicted), set, target_len - n_protected);
    const at::Tensor pivot_entries = split.evicted.index_select(0, pivot);

    const at::Tensor kept = at::cat({split.kept, pivot_entries});
    const auto [ordered, order] = kept.sort();
    HeadFit fit = keep(problem, ordered);
    fit.notes = reach_notes(problem, range_);
    fit.notes["merged_entries"] = keys.size(0) - target_len;
    const at::Tensor weights = set_weights(problem, keys, split.evicted, pivot_entries, set);
    const auto mean = [&](const at::Tensor& rows, const at::Tensor& own) {
      const at::Tensor summed = group_sums(rows.index_select(0, split.evicted) * weights, set, pivot_entries.size(0)) /
                                group_sums(weights, set, pivot_entries.size(0));
      return at::cat({own.index_select(0, split.kept), summed.to(own.scalar_type())}).index_select(0, order);
    };
    fit.keys = mean(keys, problem.keys);
    fit.values = mean(values, problem.values);
    return fit;
  }

  // The set of each row, 0 to n_sets - 1: the pairs of neighbours most alike are joined until so many sets are left,
  // the first pair first among equals.
  static at::Tensor joined(const at::Tensor& keys, int64_t n_sets) {
    const int64_t n = keys.size(0);
    const at::Tensor directions = keys / keys.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12);
    const at::Tensor alike = (directions.narrow(0, 1, n - 1) * directions.narrow(0, 0, n - 1)).sum(1);
    const at::Tensor order = std::get<1>(alike.sort(/*stable=*/true, /*dim=*/0, /*descending=*/true));
    const at::Tensor cut = at::ones({n - 1}, order.options()).index_fill(0, order.narrow(0, 0, n - n_sets), 0);
    return at::cat({at::zeros({1}, order.options()), cut.cumsum(0)});
  }

  // Of each set the row of highest score, the first among equals: (n_sets) int64.
  static at::Tensor pivots(const at::Tensor& scores, const at::Tensor& set, int64_t n_sets) {
    const at::Tensor best =
        at::full({n_sets}, -INFINITY, scores.options()).scatter_reduce(0, set, scores, "amax", /*include_self=*/true);
    const at::Tensor rows = at::arange(set.size(0), set.options());
    const at::Tensor candidate = at::where(scores.eq(best.index_select(0, set)), rows, set.size(0));
    return at::full({n_sets}, set.size(0), set.options())
        .scatter_reduce(0, set, candidate, "amin", /*include_self=*/true);
  }

  // Up to one factor for each set: (n, 1) float64.
  static at::Tensor set_weights(const HeadProblem& problem, const at::Tensor& keys, const at::Tensor& entries,
                                const at::Tensor& pivot_entries, const at::Tensor& set) {
    const int64_t n_sets = pivot_entries.size(0);
    const at::Tensor of_row = pivot_entries.index_select(0, set);
    const at::Tensor distance = (keys.index_select(0, entries) - keys.index_select(0, of_row)).norm(2, 1, true);
    const at::Tensor others = group_sums(at::ones_like(distance), set, n_sets) - 1;
    const at::Tensor mean = group_sums(distance, set, n_sets) / others.clamp_min(1);
    at::Tensor exponents = -(distance / mean.index_select(0, set).clamp_min(1e-300)).square().squeeze(1);
    if (problem.bias.defined()) {
      // Relative to the largest of the set, so that no old bias overflows.
      exponents = exponents + problem.bias.to(at::kDouble).index_select(0, entries);
      const at::Tensor largest = at::full({n_sets}, -INFINITY, exponents.options())
                                     .scatter_reduce(0, set, exponents, "amax", /*include_self=*/true);
      exponents = exponents - largest.index_select(0, set);
    }
    return exponents.exp().unsqueeze(1);
  }

  Options options_;
};

KVC_REGISTER_METHOD(KvMerger, "kv_merger", "arXiv:2407.08454");

}  // namespace
}  // namespace kvc
