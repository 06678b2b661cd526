// Heavy hitters and recent entries, with the values of evicted entries merged into those that stay; keys as they were,
// no bias. Zhang et al., "CaM: Cache Merging for Memory-efficient LLMs Inference", ICML 2024 (PMLR 235).
//
// An evicted entry i adds its value to each of the next m kept entries j:
//   v_j += M_i v_i / m        M_i ~ Bernoulli(min(1, a_i / mean_j a_j))
// with a the mean attention weight over the reference queries: the expected attention output changes little, since
// mean_j a_j M_i v_i stands where a_i v_i stood. Fewer than m kept entries after i: those that there are; none: v_i is
// lost.
//
// Differences from the paper: it evicts one entry a step, so that merged values may be merged on; here the cut is made
// once (as h2o does it), every evicted value is the original one, and "next" means in order of position. A group shares
// one draw. The bias of a kept entry is its old one; the old bias of an evicted entry counts through its attention.
#include <ATen/ATen.h>

#include "methods/parts/key_selection.h"
#include "methods/parts/merging.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class Cam final : public PerHeadMethod {
 public:
  struct Options {
    double recent_fraction = 0.5;
    int64_t n_merged = 32;
    void fields(auto&& visit) {
      visit("recent_fraction", recent_fraction, "part of the kept entries that are the most recent ones, 0 to 1");
      visit("n_merged", n_merged, "m: kept entries that share an evicted value");
    }
    void check(const OptionCheck& fail) const {
      if (!(recent_fraction >= 0 && recent_fraction <= 1)) fail("recent_fraction", "is out of range", "0 to 1");
      if (n_merged < 1 || n_merged > 1000000) fail("n_merged", "is out of range", "1 to 1000000, e.g. 32");
    }
  };
  explicit Cam(const Options& options) : options_(options) {}

  bool needs_queries() const override { return true; }

  at::Tensor scores(const HeadProblem& problem) const override {
    return summarize_attention(problem.queries, problem.keys, problem.bias, KeyScore::kMean).scores;
  }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    // One number for each entry, whatever the target: a value merged at one target is merged at all where it may.
    const at::Generator generator = at::detail::createCPUGenerator(problem.seed);
    const at::Tensor draws =
        at::rand({problem.keys.size(0)}, generator, at::TensorOptions(at::kDouble)).to(problem.keys.device());
    return [this, problem, draws, scores = scores(problem)](int64_t target_len) {
      const at::Tensor kept = heavy_and_recent(scores, target_len, options_.recent_fraction);
      const Split split = split_entries(kept, scores.size(0));
      HeadFit fit = keep(problem, split.kept);
      if (split.evicted.size(0) > 0) merge_values(problem, scores.to(at::kDouble), draws, split, fit);
      return fit;
    };
  }

 private:
  void merge_values(const HeadProblem& problem, const at::Tensor& attention, const at::Tensor& draws,
                    const Split& split, HeadFit& fit) const {
    const int64_t target_len = split.kept.size(0);
    const int64_t m = options_.n_merged;
    // Evicted entry i goes to the kept ones numbered first_i .. last_i - 1.
    const at::Tensor first = at::searchsorted(split.kept, split.evicted);
    const at::Tensor last = at::clamp_max(first + m, target_len);
    const at::Tensor n_takers = (last - first).clamp_min(1).to(at::kDouble);
    const at::Tensor kept_attention = attention.index_select(0, split.kept).unsqueeze(1);
    const at::Tensor mean = range_sums(kept_attention, first, last).squeeze(1) / n_takers;
    // 0 / 0 is not a number and merges nothing: takers without attention would not show the value anyway.
    const at::Tensor chance = attention.index_select(0, split.evicted) / mean;
    const at::Tensor merged = draws.index_select(0, split.evicted).lt(chance);
    const at::Tensor share = merged.to(at::kDouble) / n_takers;
    const at::Tensor parts = problem.values.index_select(0, split.evicted).to(at::kDouble) * share.unsqueeze(1);
    // Kept entry k takes from evicted ones with first_i in k - m + 1 .. k, which follow each other.
    const at::Tensor number = at::arange(target_len, split.kept.options());
    const at::Tensor taken = range_sums(parts, at::searchsorted(first, number - (m - 1)),
                                        at::searchsorted(first, number, /*out_int32=*/false, /*right=*/true));
    fit.values = (fit.values.to(at::kDouble) + taken).to(problem.values.scalar_type());
    fit.notes["merged_entries"] = at::logical_and(merged, first.lt(target_len)).sum().item<int64_t>();
  }

  Options options_;
};

KVC_REGISTER_METHOD(Cam, "cam", "CaM, ICML 2024");

}  // namespace
}  // namespace kvc
