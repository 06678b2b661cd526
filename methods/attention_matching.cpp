// Keeps a subset of the keys and fits a bias and a value to each, so that the head's attention mass and attention
// output on the reference queries stay what they were. Zweiger, Fu, Guo, Kim, "Fast KV Compaction via Attention
// Matching", arXiv:2602.16284.
//
//   select: the t keys of highest score (rms, max or mean attention weight over the queries)
//   bias:   ln w, w = argmin ||E[:,sel] w - mass|| within exp(-bias_bound) .. exp(bias_bound), E = exp(S - m), m_i =
//   max over ALL T
//           of S_i; unconstrained least squares, clamped, then nnls_iters projected-gradient steps (the paper's
//           Algorithm 3)
//   values: argmin ||softmax(S[:,sel] + bias) C - softmax(S) V||, minimum-norm least squares
//
// Differences from the published code: an old bias is added back to ln w, so an already compacted cache can be
// compacted again; the bias is stored and used in float32, so nothing is rounded before the value fit; solves are
// rank-revealing (Gram matrix in float64) where the published ones assume full rank; equal scores are ordered by
// position and the power iteration is seeded, so equal requests give equal bytes. A head that keeps all its entries (t
// = T) is returned untouched: w = 1, C = V solves both fits exactly, and solving would only add rounding.
#include <ATen/ATen.h>

#include <algorithm>

#include "harness/api/compaction_method.h"
#include "methods/parts/fit.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

class AttentionMatching final : public PerHeadMethod {
 public:
  struct Options {
    std::string select = "highest_attention";
    std::string score = "rms";
    std::string bias = "nnls";
    std::string values = "least_squares";
    int64_t nnls_iters = 2;
    double bias_bound = 3.0;
    void fields(auto&& visit) {
      visit("select", select, "how keys are chosen: highest_attention");
      visit("score", score, "highest_attention: attention weight over the queries, rms, max or mean");
      visit("bias", bias, "nnls (fit the attention mass) or none");
      visit("values", values, "least_squares (fit the attention output) or copy");
      visit("nnls_iters", nnls_iters, "projected-gradient steps of the bias fit; 0 = clamped least squares");
      visit("bias_bound", bias_bound, "fitted weights stay within exp(-bound) and exp(bound)");
    }
    void check(const OptionCheck& fail) const {
      const auto one_of = [&](const char* name, const std::string& value, const std::vector<std::string>& known) {
        if (std::find(known.begin(), known.end(), value) == known.end()) {
          fail(name, "is '" + value + "'", suggest_name(value, known));
        }
      };
      one_of("select", select, {"highest_attention"});
      one_of("score", score, key_score_names());
      one_of("bias", bias, {"nnls", "none"});
      one_of("values", values, {"least_squares", "copy"});
      if (nnls_iters < 0 || nnls_iters > 100000) fail("nnls_iters", "is out of range", "0 to 100000");
      if (!(bias_bound > 0 && bias_bound <= 50)) fail("bias_bound", "is out of range", "above 0, at most 50");
    }
  };
  explicit AttentionMatching(const Options& options) : score_(key_score_from(options.score)) {
    fit_.fit_bias = options.bias == "nnls";
    fit_.fit_values = options.values == "least_squares";
    fit_.bias_bound = options.bias_bound;
    fit_.nnls_iterations = options.nnls_iters;
  }

  bool needs_queries() const override { return true; }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t largest_target_len) const override {
    const AttentionSummary attention = summarize_attention(problem.queries, problem.keys, problem.bias, score_,
                                                           fit_.fit_values ? problem.values : at::Tensor());
    const OrderedFit fitted(problem, attention, best_keys(attention.scores, largest_target_len), fit_);
    return [problem, fitted](int64_t target_len) {
      const int64_t source_len = problem.keys.size(0);
      if (target_len < source_len) return fitted.fit(target_len);
      return keep(problem, at::arange(source_len, problem.keys.options().dtype(at::kLong)));
    };
  }

 private:
  KeyScore score_;
  FitSettings fit_;
};

KVC_REGISTER_METHOD(AttentionMatching, "attention_matching", "arXiv:2602.16284");

}  // namespace
}  // namespace kvc
