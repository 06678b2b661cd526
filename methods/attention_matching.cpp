// Keeps a subset of the keys and fits a bias and a value to each, so that the head's attention mass and attention
// output on the reference queries stay what they were. Zweiger, Fu, Guo, Kim, "Fast KV Compaction via Attention
// Matching", arXiv:2602.16284.
//
//   select: highest_attention: the t keys of highest score (rms, max or mean attention weight over the queries)
//           omp: orthogonal matching pursuit of the attention mass (harness/math/matching_pursuit.h)
//   bias:   ln w, w = argmin ||E[:,sel] w - mass|| within exp(-bias_bound) .. exp(bias_bound), E = exp(S - m), m_i =
//           max over ALL T of S_i; nnls: unconstrained least squares, clamped, then nnls_iters projected-gradient steps
//           (the paper's Algorithm 3); active_set: to the minimum; none: no bias. The pursuit's own last weights are
//           its nnls.
//   values: argmin ||softmax(S[:,sel] + bias) C - softmax(S) V||: least_squares (of smallest norm), ridge, or copy
//
// Every stage can be switched alone. am_highest_attention, am_omp and am_omp_fast are the paper's settings of them; its
// "fast" and on-policy variants of highest attention differ in queries only, which are a sweep's own choice.
//
// Differences from the published code: an old bias is added back to ln w, so an already compacted cache can be
// compacted again; the bias is stored and used in float32, so nothing is rounded before the value fit; solves are
// rank-revealing (Gram matrix in float64) where the published ones assume full rank; equal scores are ordered by
// position and the power iteration begins with the row sums, so equal requests give equal bytes; the pursuit always
// ends with a solve over all its picks, and its weights keep to the bounds. A head that keeps all its entries (t = T)
// is returned untouched: w = 1, C = V solves both fits exactly, and solving would only add rounding.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "harness/api/compaction_method.h"
#include "harness/math/matching_pursuit.h"
#include "methods/parts/fit.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

struct MatchingOptions {
  std::string select = "highest_attention";
  std::string score = "rms";
  std::string pooling = "none";
  int64_t pooling_kernel = 7;
  int64_t k_choice = 1;
  int64_t nnls_interval = 1;
  std::string schedule = "fixed";
  double drop_below = -7.0;
  std::string bias = "nnls";
  std::string values = "least_squares";
  int64_t nnls_iters = 2;
  double bias_bound = 3.0;
  double ridge = 0.001;
  std::string ridge_scale = "spectral";

  void fields(auto&& visit) {
    visit("select", select, "how keys are chosen: highest_attention or omp");
    visit("score", score, "highest_attention: attention weight over the queries, rms, max or mean");
    visit("pooling", pooling, "highest_attention: scores pooled over positions, none, avg or max");
    visit("pooling_kernel", pooling_kernel, "width of the pooling, odd");
    visit("k_choice", k_choice, "omp: keys picked at a time");
    visit("nnls_interval", nnls_interval, "omp: iterations from one solve to the next");
    visit("schedule", schedule,
          "omp: fixed, or progressive (k_choice, nnls_interval 1,1 up to 300 picks, 2,2 up to 1,500, then 4,2)");
    visit("drop_below", drop_below, "omp: keys whose fitted bias is lower are replaced by others; 0: none are");
    visit("bias", bias, "fit of the attention mass: nnls, active_set (to the minimum) or none");
    visit("values", values, "fit of the attention output: least_squares, ridge, or copy for no fit");
    visit("nnls_iters", nnls_iters, "projected-gradient steps of the bias fit; 0 = clamped least squares");
    visit("bias_bound", bias_bound, "fitted weights stay within exp(-bound) and exp(bound)");
    visit("ridge", ridge, "values: ridge: the penalty, in units of ridge_scale");
    visit("ridge_scale", ridge_scale, "spectral or frobenius (of the matrix fitted with), or fixed (1)");
  }
  void check(const OptionCheck& fail) const {
    const auto one_of = [&](const char* name, const std::string& value, const std::vector<std::string>& known) {
      if (std::find(known.begin(), known.end(), value) == known.end()) {
        fail(name, "is '" + value + "'", suggest_name(value, known));
      }
    };
    one_of("select", select, {"highest_attention", "omp"});
    one_of("score", score, key_score_names());
    one_of("pooling", pooling, {"none", "avg", "max"});
    one_of("schedule", schedule, {"fixed", "progressive"});
    one_of("bias", bias, {"nnls", "active_set", "none"});
    one_of("values", values, {"least_squares", "ridge", "copy"});
    one_of("ridge_scale", ridge_scale, {"spectral", "frobenius", "fixed"});
    if (pooling_kernel < 1 || pooling_kernel % 2 == 0 || pooling_kernel > 1001) {
      fail("pooling_kernel", "must be an odd number from 1 to 1001", "e.g. 7");
    }
    if (k_choice < 1 || k_choice > 100000) fail("k_choice", "is out of range", "1 to 100000");
    if (nnls_interval < 1 || nnls_interval > 100000) fail("nnls_interval", "is out of range", "1 to 100000");
    if (!(drop_below <= 0 && drop_below >= -100)) fail("drop_below", "is out of range", "0, or below it, e.g. -7");
    if (nnls_iters < 0 || nnls_iters > 100000) fail("nnls_iters", "is out of range", "0 to 100000");
    if (!(bias_bound > 0 && bias_bound <= 50)) fail("bias_bound", "is out of range", "above 0, at most 50");
    if (!(ridge > 0 && ridge <= 1e6)) fail("ridge", "is out of range", "above 0, at most 1e6");
  }
};

class AttentionMatching : public PerHeadMethod {
 public:
  using Options = MatchingOptions;
  explicit AttentionMatching(const Options& options)
      : options_(options), score_(key_score_from(options.score)), pursues_(options.select == "omp") {
    fit_.bias = options.bias == "none" ? BiasFit::kNone : options.bias == "nnls" ? BiasFit::kNnls : BiasFit::kActiveSet;
    fit_.values = options.values == "copy"            ? ValueFit::kCopy
                  : options.values == "least_squares" ? ValueFit::kLeastSquares
                                                      : ValueFit::kRidge;
    fit_.bias_bound = options.bias_bound;
    fit_.nnls_iterations = options.nnls_iters;
    fit_.ridge = options.ridge;
    fit_.ridge_scale = options.ridge_scale == "fixed"      ? RidgeScale::kFixed
                       : options.ridge_scale == "spectral" ? RidgeScale::kSpectral
                                                           : RidgeScale::kFrobenius;
  }

  bool needs_queries() const override { return true; }

  // The attention weights that highest_attention ranks by, whatever the selection.
  at::Tensor scores(const HeadProblem& problem) const override {
    return pooled(summarize_attention(problem.queries, problem.keys, problem.bias, score_).scores);
  }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t largest_target_len) const override {
    const AttentionSummary attention = summarize_attention(problem.queries, problem.keys, problem.bias, score_,
                                                           fit_.fit_values() ? problem.values : at::Tensor());
    const HeadFitter some =
        pursues_ ? pursue(problem, attention, largest_target_len) : rank(problem, attention, largest_target_len);
    return [problem, some](int64_t target_len) {
      const int64_t source_len = problem.keys.size(0);
      if (target_len < source_len) return some(target_len);
      return keep(problem, at::arange(source_len, problem.keys.options().dtype(at::kLong)));
    };
  }

 private:
  HeadFitter rank(const HeadProblem& problem, const AttentionSummary& attention, int64_t most) const {
    const OrderedFit fitted(problem, attention, best_keys(pooled(attention.scores), most), fit_);
    return [fitted](int64_t target_len) { return fitted.fit(target_len); };
  }

  HeadFitter pursue(const HeadProblem& problem, const AttentionSummary& attention, int64_t most) const {
    PursuitSettings settings;
    settings.k_choice = options_.k_choice;
    settings.nnls_interval = options_.nnls_interval;
    settings.progressive = options_.schedule == "progressive";
    settings.upper = std::exp(options_.bias_bound);
    if (options_.drop_below < 0) settings.drop_below = options_.drop_below;
    const std::shared_ptr<Pursuit> pursuit =
        make_pursuit(problem.queries, problem.keys, problem.bias, attention.row_max, attention.row_sum, settings);
    // Everything is kept without a pursuit; where that is the largest target, the others need a shorter way.
    pursuit->run(std::min(most, problem.keys.size(0) - 1));
    return [problem, attention, pursuit, fit = fit_](int64_t target_len) {
      return fit_picks(problem, attention, pursuit->picks(target_len), target_len, fit);
    };
  }

  // Where the pursuit ran out of keys the rest of the target goes to those of highest score.
  static HeadFit fit_picks(const HeadProblem& problem, const AttentionSummary& attention, PursuitPicks picks,
                           int64_t target_len, const FitSettings& settings) {
    std::vector<int64_t> order = picks.order;
    const auto n_missing = target_len - static_cast<int64_t>(order.size());
    if (n_missing > 0) {
      at::Tensor rest = attention.scores.cpu().clone();
      for (const int64_t key : order) rest[key] = -1.0F;
      const at::Tensor more = best_keys(rest, n_missing);
      for (int64_t i = 0; i < n_missing; ++i) {
        order.push_back(more[i].item<int64_t>());
        picks.weights.push_back(0);
      }
    }
    const double lower = std::exp(-settings.bias_bound), upper = std::exp(settings.bias_bound);
    int64_t at_bound = 0;
    std::vector<float> log_weights;
    for (const double w : picks.weights) {
      at_bound += w <= lower || w >= upper ? 1 : 0;
      log_weights.push_back(static_cast<float>(std::log(std::clamp(w, lower, upper))));
    }
    const auto device = problem.keys.device();
    const OrderedFit fitted(problem, attention, at::tensor(order, at::kLong).to(device), settings);
    const bool own = settings.bias == BiasFit::kNnls;
    HeadFit fit = fitted.fit(target_len, own ? at::tensor(log_weights, at::kFloat).to(device) : at::Tensor());
    if (own) fit.notes["bias_at_bound"] = at_bound;
    fit.notes["keys_dropped"] = picks.n_dropped;
    fit.notes["keys_dependent"] = picks.n_dependent;
    fit.notes["choices_cut"] = picks.n_cut;
    fit.notes["keys_beyond_pursuit"] = n_missing;
    return fit;
  }

  at::Tensor pooled(const at::Tensor& scores) const {
    if (options_.pooling == "none") return scores;
    const int64_t kernel = options_.pooling_kernel;
    const at::Tensor line = scores.view({1, 1, -1});
    // Zeros beyond both ends count in the mean and are ignored by the maximum, as in the published code.
    return (options_.pooling == "max" ? at::max_pool1d(line, {kernel}, {1}, {kernel / 2})
                                      : at::avg_pool1d(line, {kernel}, {1}, {kernel / 2}))
        .view(-1);
  }

  Options options_;
  KeyScore score_;
  bool pursues_;
  FitSettings fit_;
};

KVC_REGISTER_METHOD(AttentionMatching, "attention_matching", "arXiv:2602.16284");

class AmHighestAttention final : public AttentionMatching {
 public:
  using AttentionMatching::AttentionMatching;
};
KVC_REGISTER_METHOD(AmHighestAttention, "am_highest_attention", "arXiv:2602.16284, AM-HighestAttnKeys");

class AmHighestAttentionFast final : public AttentionMatching {
 public:
  using AttentionMatching::AttentionMatching;
};
KVC_REGISTER_METHOD(AmHighestAttentionFast, "am_highest_attention_fast",
                    "arXiv:2602.16284, AM-HighestAttnKeys-fast: the same fits, with queries of repeat_prefill");

class AmOmp : public AttentionMatching {
 public:
  struct Options : MatchingOptions {
    Options() {
      select = "omp";
      bias_bound = 7.0;
      nnls_iters = 0;
    }
  };
  explicit AmOmp(const Options& options) : AttentionMatching(options) {}
};
KVC_REGISTER_METHOD(AmOmp, "am_omp", "arXiv:2602.16284, AM-OMP");

class AmOmpFast final : public AttentionMatching {
 public:
  struct Options : AmOmp::Options {
    Options() {
      k_choice = 4;
      nnls_interval = 2;
    }
  };
  explicit AmOmpFast(const Options& options) : AttentionMatching(options) {}
};
KVC_REGISTER_METHOD(AmOmpFast, "am_omp_fast", "arXiv:2602.16284, AM-OMP-fast");

}  // namespace
}  // namespace kvc
