// Half of the target by another method's scores, the rest by those scores times what the entry's value writes into the
// residual stream. Feng, Lv, Cao, Xie, Zhou, "Identify Critical KV Cache in LLM Inference from an Output Perturbation
// Perspective" (CriticalKV), arXiv:2502.03805.
//
//   first:  the floor(first_stage t) entries of highest score a_i, at least one
//   then:   of the others those of highest (a_i + epsilon) mean over the group's query heads of |W_o v_i|_1
//
// The scores are those of the method `scores`, asked with the outer cell's queries. Follows kvpress (CriticalKVPress:
// epsilon 1e-4, halves, L1 norm). They must not be negative, as attention weights are not (expected_attention's are
// logarithms and are refused). A budget shared by score goes by a_i, as CriticalAdaKV's. Needs the model's output
// projection, so not a head alone.
#include <ATen/ATen.h>

#include <algorithm>

#include "harness/core/error.h"
#include "methods/parts/inner_scores.h"
#include "methods/parts/key_selection.h"
#include "methods/parts/output_norms.h"

namespace kvc {
namespace {

class CriticalKv final : public PerHeadMethod {
 public:
  struct Options {
    NestedPlugin scores{{{"method", "snapkv"}}};
    double first_stage = 0.5;
    double epsilon = 1e-4;
    void fields(auto&& visit) {
      visit("scores", scores, "method whose scores choose: {method: NAME, option: value}");
      visit("first_stage", first_stage, "part of the target that its scores alone choose, 0 to 1", between(0, 1));
      visit("epsilon", epsilon, "added to a score before it meets the value's norm", between(0, 1));
    }
    void complete(const std::string& pointer, Problems& problems) {
      InnerScores::complete(scores.value, "critical_kv", pointer + "/scores", problems);
    }
  };
  explicit CriticalKv(const Options& options) : options_(options), inner_(options.scores.value) {}

  std::string published_queries() const override { return inner_.published_queries(); }
  at::Tensor scores(const HeadProblem& problem) const override { return inner_.of(problem); }
  std::vector<at::Tensor> score_heads(const std::vector<HeadProblem>& problems) const override {
    return inner_.of(problems);
  }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t largest_target_len) const override {
    const at::Tensor scores = scores_once(problem);
    if (scores.lt(0).any().item<bool>()) {
      throw Error(ErrorKind::kUsage, "critical_kv multiplies scores, and this method has negative ones", "scores",
                  "take a method that scores by attention weights, e.g. snapkv");
    }
    const at::Tensor order = best_keys(scores, largest_target_len);
    const at::Tensor weighted = (scores + options_.epsilon) * output_norms(problem, 1, "critical_kv").mean(0);
    return [problem, order, weighted, part = options_.first_stage](int64_t target_len) {
      const auto by_part = static_cast<int64_t>(part * static_cast<double>(target_len));
      const int64_t n_first = part > 0 ? std::max<int64_t>(1, by_part) : 0;
      const at::Tensor first = order.narrow(0, 0, n_first);
      const at::Tensor rest = weighted.index_fill(0, first, -1.0);
      return keep(problem, at::cat({first, best_keys(rest, target_len - n_first)}));
    };
  }

 private:
  Options options_;
  InnerScores inner_;
};

KVC_REGISTER_METHOD(CriticalKv, "critical_kv", "arXiv:2502.03805");

}  // namespace
}  // namespace kvc
