// Heavy hitters and recent entries, with the values of evicted entries merged into those that stay; keys as they were,
// no bias. Zhang et al., "CaM: Cache Merging for Memory-efficient LLMs Inference", ICML 2024, PMLR 235:58840.
//
// In order of position, an entry i that will not stay adds its value to each of the m entries j behind it:
//   v_j += M_i v_i / m        M_i ~ Bernoulli(min(1, a_i / mean_j a_j))
// with a the mean attention weight over the reference queries, scored as in h2o: with the queries of context_prefill
// under the causal mask, as a share of all that a query attends to (`softmax_over: text`; `article` renormalises over
// the compactable entries, without a mask). What a_i v_i was in the output, mean_j a_j M_i v_i is in
// expectation. Those behind it may not stay either, and pass on what they were given. Near the end of the span there
// are fewer than m entries, the last one has none.
//
// Differences from the paper: there an entry is evicted when it leaves the window of recent ones, its attention known
// so far; here the whole context is known, and who stays is decided beforehand, as h2o decides it. A group shares one
// draw. The bias of a kept entry is its old one; the old bias of an evicted entry counts through its attention. As in
// the paper, the softmax over what is left is not corrected for the attention that is lost, so outputs grow where much
// of it is.
#include <ATen/ATen.h>

#include "methods/parts/heavy_hitters.h"
#include "methods/parts/merging.h"

namespace kvc {
namespace {

class Cam final : public HeavyHitters {
 public:
  struct Options : HeavyHitters::Options {
    int64_t n_merged = 32;
    void fields(auto&& visit) {
      HeavyHitters::Options::fields(visit);
      visit("n_merged", n_merged, "m: entries behind an evicted one that share its value", between(1, 1000000));
    }
  };
  explicit Cam(const Options& options) : HeavyHitters(options), options_(options) {}

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    const at::Tensor attention = scores_once(problem);
    // Drawn on the CPU whatever the device: the same draws. Scores are all that is copied there.
    const at::Tensor merged = draw_merged(problem, attention.cpu().to(at::kDouble)).to(attention.device());
    const at::Tensor values = problem.values.to(at::kDouble).contiguous();
    return [this, problem, attention, merged, values](int64_t target_len) {
      const at::Tensor kept = heavy_and_recent(attention, target_len, options_.recent_fraction);
      const Split split = split_entries(kept, attention.size(0));
      HeadFit fit = keep(problem, split.kept);
      fit.notes = reach_notes(problem, range_);
      at::Tensor passed_on = at::zeros({attention.size(0)}, merged.options());
      passed_on.index_copy_(0, split.evicted, merged.index_select(0, split.evicted));
      fit.notes["merged_entries"] = passed_on.sum().item<int64_t>();
      const at::Tensor passed = values.is_cpu() ? pass_values_on(values, passed_on, options_.n_merged)
                                                : pass_values_on_in_blocks(values, passed_on, options_.n_merged);
      fit.values = passed.index_select(0, split.kept).to(fit.values.options());
      return fit;
    };
  }

 private:
  // Whether each entry is merged if it is evicted, the same for every target: (T) bool.
  at::Tensor draw_merged(const HeadProblem& problem, const at::Tensor& attention) const {
    const int64_t source_len = attention.size(0);
    const at::Generator generator = at::detail::createCPUGenerator(problem.seed);
    const at::Tensor draws = at::rand({source_len}, generator, attention.options());
    const at::Tensor behind = at::arange(1, source_len + 1, at::TensorOptions(at::kLong));
    const at::Tensor end = at::clamp_max(behind + options_.n_merged, source_len);
    const at::Tensor mean = range_sums(attention.unsqueeze(1), behind, end).squeeze(1) / (end - behind);
    // The last entry's mean is 0 / 0, and no number is below a chance that is none. Entries without attention among
    // others without it: the same, their values would not show anyway.
    return draws.lt(attention / mean);
  }

  Options options_;
};

KVC_REGISTER_METHOD(Cam, "cam", "CaM, ICML 2024");

}  // namespace
}  // namespace kvc
