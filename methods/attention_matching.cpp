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
//
// Reference queries: every kept entry has a bias and a value of its own, fitted to the queries. A head with fewer than
// two queries an entry is counted in the note heads_with_few_queries, of which the report warns.
//
// On a GPU heads go through in batches (fit_heads): the same numbers within rounding. How heads share batches follows
// from their shapes and targets and from the GPU's memory, so equal requests give equal bytes there too; a target
// beside other targets may differ from the same target alone in last bits.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>

#include "harness/api/compaction_method.h"
#include "harness/api/pack_compaction.h"
#include "harness/attention/device_pursuit_kernels.h"
#include "harness/core/stopwatch.h"
#include "harness/math/device_pursuit.h"
#include "harness/math/matching_pursuit.h"
#include "harness/math/to_device.h"
#include "methods/batched_fit.h"
#include "methods/parts/batched_scores.h"
#include "methods/parts/fit.h"
#include "methods/parts/head_batches.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

constexpr int64_t kQueriesPerEntry = 2;  // fewer leave a fit undetermined, or nearly so: its report warns

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
    visit("select", select, "how keys are chosen: highest_attention or omp", one_of({"highest_attention", "omp"}));
    visit("score", score, "highest_attention: attention weight over the queries, rms, max or mean",
          one_of(key_score_names()));
    visit("pooling", pooling, "highest_attention: scores pooled over positions, none, avg or max",
          one_of({"none", "avg", "max"}));
    visit("pooling_kernel", pooling_kernel, "width of the pooling, odd", odd(1001));
    visit("k_choice", k_choice, "omp: keys picked at a time", between(1, 100000));
    visit("nnls_interval", nnls_interval, "omp: iterations from one solve to the next", between(1, 100000));
    visit("schedule", schedule,
          "omp: fixed, or progressive (k_choice, nnls_interval 1,1 up to 300 picks, 2,2 up to 1,500, then 4,2)",
          one_of({"fixed", "progressive"}));
    visit("drop_below", drop_below, "omp: keys with a lower fitted bias are replaced; 0: off", between(-100, 0));
    visit("bias", bias, "fit of the attention mass: nnls, active_set (to the minimum) or none",
          one_of({"nnls", "active_set", "none"}));
    visit("values", values, "fit of the attention output: least_squares, ridge, or copy for no fit",
          one_of({"least_squares", "ridge", "copy"}));
    visit("nnls_iters", nnls_iters, "projected-gradient steps of the bias fit; 0 = clamped least squares",
          between(0, 100000));
    visit("bias_bound", bias_bound, "fitted weights stay within exp(-bound) and exp(bound)", more_than(0, 50));
    visit("ridge", ridge, "values: ridge: the penalty, in units of ridge_scale", more_than(0, 1e6));
    visit("ridge_scale", ridge_scale, "spectral or frobenius (of the matrix fitted with), or fixed (1)",
          one_of({"spectral", "frobenius", "fixed"}));
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

  std::string published_queries() const override { return "repeat_prefill"; }
  bool fits_heads_together(const at::Device& device) const override { return !device.is_cpu(); }

  // Scores, picks and fits of a batch of heads at a time; what a batch cannot fit is fitted alone.
  std::vector<HeadResult> fit_heads(const std::vector<HeadProblem>& problems,
                                    const std::vector<std::vector<int64_t>>& targets) const override {
    std::vector<int64_t> largest;
    for (const auto& list : targets) largest.push_back(list.empty() ? 0 : *std::max_element(list.begin(), list.end()));
    std::vector<HeadResult> results(problems.size());
    for (const std::vector<size_t>& members : batches(problems, largest)) {
      std::vector<HeadProblem> some;
      std::vector<std::vector<int64_t>> some_targets;
      for (const size_t head : members) {
        some.push_back(problems[head]);
        some_targets.push_back(targets[head]);
      }
      std::vector<HeadResult> made = fit_some(some, some_targets, largest[members.front()]);
      for (size_t i = 0; i < members.size(); ++i) results[members[i]] = std::move(made[i]);
    }
    return results;
  }

  // The attention weights that highest_attention ranks by, whatever the selection.
  at::Tensor scores(const HeadProblem& problem) const override {
    return pooled(summarize_attention(problem.queries, problem.keys, problem.bias, score_).scores);
  }
  std::vector<at::Tensor> score_heads(const std::vector<HeadProblem>& problems) const override {
    if (problems.empty() || problems.front().keys.is_cpu()) return PerHeadMethod::score_heads(problems);
    std::vector<at::Tensor> made = scores_together(problems, score_, std::vector<RowReach>(problems.size()));
    for (at::Tensor& own : made) own = pooled(own);
    return made;
  }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t largest_target_len) const override {
    const AttentionSummary attention = summarize_attention(problem.queries, problem.keys, problem.bias, score_,
                                                           fit_.fit_values() ? problem.values : at::Tensor());
    const HeadFitter some =
        pursues_ ? pursue(problem, attention, largest_target_len) : rank(problem, attention, largest_target_len);
    return [this, problem, some](int64_t target_len) {
      const int64_t source_len = problem.keys.size(0);
      if (target_len < source_len) return with_query_note(some(target_len), problem.queries.size(0), target_len);
      return keep(problem, at::arange(source_len, problem.keys.options().dtype(at::kLong)));
    };
  }

 private:
  HeadFitter rank(const HeadProblem& problem, const AttentionSummary& attention, int64_t most) const {
    const OrderedFit fitted(problem, attention, best_keys(pooled(attention.scores), most), fit_);
    return [fitted](int64_t target_len) { return fitted.fit(target_len); };
  }

  PursuitSettings pursuit_settings() const {
    PursuitSettings settings;
    settings.k_choice = options_.k_choice;
    settings.nnls_interval = options_.nnls_interval;
    settings.progressive = options_.schedule == "progressive";
    settings.upper = std::exp(options_.bias_bound);
    if (options_.drop_below < 0) settings.drop_below = options_.drop_below;
    return settings;
  }

  HeadFitter pursue(const HeadProblem& problem, const AttentionSummary& attention, int64_t most) const {
    const std::shared_ptr<Pursuit> pursuit =
        make_pursuit(problem.queries, problem.keys, problem.bias, attention.row_max, attention.row_sum,
                     pursuit_settings(), gpu::pursuit_kernels(problem.keys.device()));
    // Everything is kept without a pursuit; where that is the largest target, the others need a shorter way.
    pursuit->run(std::min(most, problem.keys.size(0) - 1));
    return [problem, attention, pursuit, fit = fit_](int64_t target_len) {
      const Completed picks = completed(pursuit->picks(target_len), attention.scores, target_len, fit.bias_bound);
      const auto device = problem.keys.device();
      const OrderedFit fitted(problem, attention, to_device(at::tensor(picks.order, at::kLong), device), fit);
      const at::Tensor weights = to_device(at::tensor(picks.log_weights, at::kFloat), device);
      return with_notes(fitted.fit(target_len, fit.bias == BiasFit::kNnls ? weights : at::Tensor()), picks, fit);
    };
  }

  // Picks, with those of highest score behind them where the pursuit ran out of keys.
  struct Completed {
    std::vector<int64_t> order;
    std::vector<float> log_weights;
    int64_t at_bound = 0, n_missing = 0;
    PursuitPicks picks;
  };
  static Completed completed(PursuitPicks picks, const at::Tensor& scores, int64_t target_len, double bias_bound) {
    Completed all;
    all.order = picks.order;
    all.n_missing = target_len - static_cast<int64_t>(picks.order.size());
    if (all.n_missing > 0) {
      at::Tensor rest = scores.cpu().clone();
      for (const int64_t key : picks.order) rest[key] = -1.0F;
      const at::Tensor more = best_keys(rest, all.n_missing);
      for (int64_t i = 0; i < all.n_missing; ++i) {
        all.order.push_back(more[i].item<int64_t>());
        picks.weights.push_back(0);
      }
    }
    const double lower = std::exp(-bias_bound), upper = std::exp(bias_bound);
    for (const double w : picks.weights) {
      all.at_bound += w <= lower || w >= upper ? 1 : 0;
      all.log_weights.push_back(static_cast<float>(std::log(std::clamp(w, lower, upper))));
    }
    all.picks = std::move(picks);
    return all;
  }

  static HeadFit with_notes(HeadFit fit, const Completed& all, const FitSettings& settings) {
    if (settings.bias == BiasFit::kNnls) fit.notes["bias_at_bound"] = all.at_bound;
    fit.notes["keys_dropped"] = all.picks.n_dropped;
    fit.notes["keys_dependent"] = all.picks.n_dependent;
    fit.notes["choices_cut"] = all.picks.n_cut;
    fit.notes["keys_beyond_pursuit"] = all.n_missing;
    return fit;
  }

  // Counts the heads whose fit has as many unknowns as half of its queries: it answers these queries and few others.
  HeadFit with_query_note(HeadFit fit, int64_t n_queries, int64_t target_len) const {
    const bool fits = fit_.bias != BiasFit::kNone || fit_.fit_values();
    if (fits && n_queries < kQueriesPerEntry * target_len) fit.notes["heads_with_few_queries"] = 1;
    return fit;
  }

  // Of a head in a batch.
  int64_t bytes(const HeadProblem& problem, int64_t target_len) const {
    const int64_t own = fit_bytes(problem, target_len);
    if (!pursues_) return own;
    const PursuitKernels* kernels = gpu::pursuit_kernels(problem.keys.device());
    const bool with_kernels = kernels != nullptr && options_.k_choice <= kernels->most_picks;
    return own + DevicePursuits::bytes(problem.queries.size(0), problem.keys.size(0), target_len, with_kernels);
  }

  std::vector<std::vector<size_t>> batches(const std::vector<HeadProblem>& problems,
                                           const std::vector<int64_t>& largest) const {
    if (problems.empty()) return {};
    const auto bytes_of = [this](const HeadProblem& problem, int64_t target_len) { return bytes(problem, target_len); };
    return head_batches(problems, largest, bytes_of, batch_bytes(problems.front().keys.device()));
  }

  // What a batch's selection and fits need; scores are those that highest_attention ranks by, or those of prepare()
  // where keys are pursued. Scores that an adaptive budget has asked for are not computed again.
  AttentionSummary summarize(const std::vector<HeadProblem>& problems, const HeadBatch& batch) const {
    const bool same_scores = !pursues_ || options_.pooling == "none";
    const bool known = same_scores && std::all_of(problems.begin(), problems.end(),
                                                  [](const HeadProblem& problem) { return problem.scores.defined(); });
    AttentionSummary made =
        summarize_heads(batch.queries, batch.keys, batch.bias, known ? std::nullopt : std::optional<KeyScore>(score_),
                        fit_.fit_values() ? batch.values : at::Tensor());
    if (!known) {
      if (!pursues_) made.scores = pooled(made.scores);
      return made;
    }
    std::vector<at::Tensor> scores;
    for (const HeadProblem& problem : problems) scores.push_back(problem.scores);
    made.scores = at::stack(scores);
    return made;
  }

  // Heads of one shape for all their targets, `most` the largest.
  std::vector<HeadResult> fit_some(const std::vector<HeadProblem>& problems,
                                   const std::vector<std::vector<int64_t>>& targets, int64_t most) const {
    std::vector<HeadResult> results(problems.size());
    const auto share = 1.0 / static_cast<double>(problems.size());
    Stopwatch watch;
    std::vector<size_t> all(problems.size());
    std::iota(all.begin(), all.end(), 0);
    const HeadBatch batch = stack_heads(problems, all);
    const int64_t source_len = batch.keys.size(1);
    const AttentionSummary attention = summarize(problems, batch);
    std::unique_ptr<DevicePursuits> pursuits;
    at::Tensor order;
    if (pursues_) {
      pursuits =
          std::make_unique<DevicePursuits>(batch.queries, batch.keys, batch.bias, attention.row_max, attention.row_sum,
                                           pursuit_settings(), KeysAtHand{}, gpu::pursuit_kernels(batch.keys.device()));
      std::vector<int64_t> longest;
      for (const auto& list : targets) {
        const int64_t length = list.empty() ? 0 : *std::max_element(list.begin(), list.end());
        longest.push_back(std::min(length, source_len - 1));
      }
      pursuits->run(longest);
    } else {
      order = std::get<1>(at::sort(attention.scores, /*stable=*/true, 1, /*descending=*/true));
      order = order.narrow(1, 0, most);
    }
    (void)attention.row_sum.sum().item<float>();  // so that a fit's time is its own
    const double prepare_s = watch.lap() * share;
    for (HeadResult& result : results) result.prepare_s = prepare_s;

    for (size_t k = 0; k < targets.front().size(); ++k) {
      std::vector<int64_t> lengths;
      for (const auto& list : targets) lengths.push_back(list[k] < source_len ? list[k] : 0);
      std::vector<HeadFit> fits = fit_lengths(problems, batch, attention, pursuits.get(), order, lengths);
      const double own_s = watch.lap() * share;
      for (size_t h = 0; h < fits.size(); ++h) {
        if (targets[h][k] == source_len) fits[h] = keep(problems[h], at::arange(source_len, indices_like(batch)));
        results[h].fits.push_back(std::move(fits[h]));
        results[h].fit_s.push_back(own_s);
      }
    }
    return results;
  }

  static at::TensorOptions indices_like(const HeadBatch& batch) { return batch.keys.options().dtype(at::kLong); }

  // Every head at its length, less than all entries; nothing kept where that is 0.
  std::vector<HeadFit> fit_lengths(const std::vector<HeadProblem>& problems, const HeadBatch& batch,
                                   const AttentionSummary& attention, const DevicePursuits* pursuits, at::Tensor order,
                                   const std::vector<int64_t>& lengths) const {
    std::vector<Completed> picked;
    at::Tensor weights;
    if (pursuits != nullptr) {
      std::vector<PursuitPicks> picks = pursuits->picks(lengths);
      for (size_t h = 0; h < picks.size(); ++h) {
        const at::Tensor scores = attention.scores[static_cast<int64_t>(h)];
        picked.push_back(completed(std::move(picks[h]), scores, lengths[h], fit_.bias_bound));
      }
      order = table_of(picked, &Completed::order, at::kLong, batch);
      if (fit_.bias == BiasFit::kNnls) weights = table_of(picked, &Completed::log_weights, at::kFloat, batch);
    }
    std::vector<std::optional<HeadFit>> together = fit_batch(batch, attention, order, lengths, fit_, weights);
    std::vector<HeadFit> fits;
    for (size_t h = 0; h < lengths.size(); ++h) {
      const auto row = static_cast<int64_t>(h);
      HeadFit fit;
      if (lengths[h] == 0) {
        fit = keep(problems[h], at::empty({0}, indices_like(batch)));
      } else if (together[h]) {
        fit = *std::move(together[h]);
      } else {
        const AttentionSummary own{attention.scores[row], attention.row_max[row], attention.row_sum[row],
                                   attention.output.defined() ? attention.output[row] : at::Tensor()};
        fit = OrderedFit(problems[h], own, order[row].narrow(0, 0, lengths[h]), fit_)
                  .fit(lengths[h], weights.defined() ? weights[row].narrow(0, 0, lengths[h]) : at::Tensor());
      }
      const bool has_picks = pursuits != nullptr && lengths[h] > 0;
      if (has_picks) fit = with_notes(std::move(fit), picked[h], fit_);
      fits.push_back(with_query_note(std::move(fit), batch.queries.size(1), lengths[h]));
    }
    return fits;
  }

  // A list of each head in one table, short ones filled up with zeros.
  template <class Number>
  static at::Tensor table_of(const std::vector<Completed>& picked, std::vector<Number> Completed::*list,
                             at::ScalarType dtype, const HeadBatch& batch) {
    std::vector<at::Tensor> rows;
    int64_t width = 0;
    for (const Completed& head : picked) width = std::max(width, static_cast<int64_t>((head.*list).size()));
    for (const Completed& head : picked) {
      const at::Tensor row = at::zeros({width}, dtype);
      if (!(head.*list).empty()) {
        row.narrow(0, 0, static_cast<int64_t>((head.*list).size())).copy_(at::tensor(head.*list, dtype));
      }
      rows.push_back(row);
    }
    return to_device(at::stack(rows), batch.keys.device());
  }

  // scores (T), or (H,T) of several heads.
  at::Tensor pooled(const at::Tensor& scores) const {
    if (options_.pooling == "none") return scores;
    const int64_t kernel = options_.pooling_kernel;
    const at::Tensor line = scores.view({-1, 1, scores.size(-1)});
    // Zeros beyond both ends count in the mean and are ignored by the maximum, as in the published code.
    return (options_.pooling == "max" ? at::max_pool1d(line, {kernel}, {1}, {kernel / 2})
                                      : at::avg_pool1d(line, {kernel}, {1}, {kernel / 2}))
        .view(scores.sizes());
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
