// Scores an entry by the worst case, the largest attention that any query of a window gives it, times what its value
// writes; entries that hold most of the window's attention come first. Feng, Guo, Lv, Zhou, Xie, "Taming the Fragility
// of KV Cache Eviction in LLM Inference" (DefensiveKV), arXiv:2510.13334.
//
//   p_hi    = weights of query i of query head h, averaged over `kernel` neighbours, brought back to their sum
//   worst_j = max over h and i of p_hij, at least the mean of that over the entries
//   score_j = worst_j n_j / sum of n_j over the layer's KV heads      n_j mean over the group of |W_o v_j|_1
//   first come the entries of highest mean weight that hold mass_fraction - b of all weight on the entries, before the
//   one that crosses it; b is the mean share of attention that the last `window` entries get
//
// Follows the authors' code (github.com/FFY0/DefensiveKV; window 32, kernel 5, 0.9). Its heads compete within a layer
// without a safeguard ({budget: adaptive, floor_fraction: 0}; LayerDefensiveKV: scope: all).
//
// Differences: the window is the end of whatever text the query source reads, not entries that are kept besides (see
// snapkv); no cap on the first entries but the target, which they do not exceed by being first. Where the layer's heads
// hold different numbers of entries (a cache compacted before) or queries are on-policy, n_j and b are those of the
// head alone, and the note heads_scored_alone counts that. Needs the model's output projection, so not a head alone.
#include <ATen/ATen.h>

#include "methods/parts/inner_scores.h"
#include "methods/parts/output_norms.h"
#include "methods/parts/query_reach.h"
#include "methods/parts/running_sums.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class DefensiveKv final : public ScoredKeys {
 public:
  struct Options : SoftmaxRange, QueryWindow {
    Options() : QueryWindow{32, 5} {}
    double mass_fraction = 0.9;
    void fields(auto&& visit) {
      window_fields(visit);
      visit("mass_fraction", mass_fraction, "part of the weight whose entries come before all others, 0 to 1; 0: none",
            between(0, 1));
      range_field(visit);
    }
  };
  explicit DefensiveKv(const Options& options) : options_(options) {}

  std::string published_queries() const override { return "context_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    constexpr double kTiny = 1e-30;
    constexpr double kFirst = 1e6;  // above every score, which is at most 1
    at::Tensor own_norms, own_weights, norms, bias;
    const LayerHeads layer = heads_of_layer(problem);
    for (size_t h = 0; h < layer.heads.size(); ++h) {
      const at::Tensor here = output_norms(layer.heads[h], 1, "defensive_kv").mean(0);
      const at::Tensor weights = window_weights(layer.heads[h], options_.window, options_.range());
      norms = norms.defined() ? norms + here : here;
      bias = bias.defined() ? bias + recent_share(weights) : recent_share(weights);
      if (h != layer.own) continue;
      own_norms = here;
      own_weights = weights;
    }
    const at::Tensor worst = worst_case(own_weights);
    const at::Tensor scores = worst * own_norms / norms.clamp_min(kTiny);
    const at::Tensor shares = own_weights.mean(at::IntArrayRef{0, 1});
    const at::Tensor parts = shares / shares.sum().clamp_min(kTiny);
    const double mass = options_.mass_fraction - bias.item<double>() / static_cast<double>(layer.heads.size());
    const auto [sorted, order] = at::sort(parts, /*stable=*/true, /*dim=*/0, /*descending=*/true);
    const int64_t n_first = running_sums(sorted).lt(mass).sum().item<int64_t>();
    const at::Tensor first = order.narrow(0, 0, std::min(n_first, parts.size(0)));
    return scores.index_copy(0, first, (parts.index_select(0, first) + 1) * kFirst);
  }

 protected:
  Json notes(const HeadProblem& problem) const override {
    Json notes = reach_notes(problem, options_.range());
    if (heads_of_layer(problem).alone) notes["heads_scored_alone"] = 1;
    return notes;
  }

 private:
  at::Tensor recent_share(const at::Tensor& weights) const {
    const int64_t n = std::min(options_.window, weights.size(2));
    return weights.narrow(2, weights.size(2) - n, n).sum(2).mean();
  }

  // (g, w, T) -> (T)
  at::Tensor worst_case(const at::Tensor& weights) const {
    constexpr double kTiny = 1e-30;
    at::Tensor smooth = weights;
    if (options_.kernel > 1) {
      smooth = at::avg_pool1d(weights.flatten(0, 1).unsqueeze(1), {options_.kernel}, {1}, {options_.kernel / 2})
                   .view(weights.sizes());
    }
    smooth = smooth / smooth.sum(2, /*keepdim=*/true).clamp_min(kTiny) * weights.sum(2, /*keepdim=*/true);
    const at::Tensor largest = smooth.flatten(0, 1).amax(0);
    return at::maximum(largest, largest.mean());
  }

  Options options_;
};

KVC_REGISTER_METHOD(DefensiveKv, "defensive_kv", "arXiv:2510.13334");

}  // namespace
}  // namespace kvc
