// Evicts as another method does, then moves the keys and values that are left so that the head answers some of the
// context's own queries as before; no bias. Peng et al., "GRKV: Global Regression for Training-Free KV Cache
// Compression in Long-Context LLMs", arXiv:2605.31105.
//
// Letters: S kept entries, template included, of which some may move; n = g n_queries queries, weight w each; A (n,S)
// their attention over what is kept, Y (n,d) their output over the full head, sqrt(w) in both sides of every fit.
//
//   values:  dV = A_m' (A_m A_m' + ridge)^-1 (Y - A V)        A_m the columns that may move
//   keys:    J dK = Y - A V with the new V, ridge on dK, J the derivative of the output; conjugate gradients on the
//   dual each dV and dK is shortened to `value_cap` and `key_cap` of the length of all moving values and keys together
//   of {as evicted, new values, new values and keys} the one of least  w |A V - Y|^2 + ridge (|dK|^2 + |dV|^2)
//
// Queries are n_queries tokens of the query text, spread evenly, all turned to the context's last position; weights sum
// to 6. The best `guard` of the kept entries by score stay as they are, and so does the template. Follows the authors'
// code (github.com/pjunjie/GRKV, its defaults: CriticalKV over SnapKV with a window of 32 and averages over 5, ridge
// 0.01, caps 0.1 and 0.025, 16 steps to 1e-6; guard 0.1 for Llama, 0 for Mistral). Its heads share a layer's target
// ({budget: adaptive, floor_fraction: 0.2}).
//
// Differences: every head is fitted alone, where the code runs the conjugate gradients of a layer's heads together and
// takes one of the three for all; no entries are kept for being in the window; fits are in float64. An old bias counts
// in every softmax and stays.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/core/error.h"
#include "methods/parts/inner_scores.h"
#include "methods/parts/key_selection.h"
#include "methods/parts/query_reach.h"
#include "methods/parts/rotation.h"

namespace kvc {
namespace {

constexpr double kLeastLength = 1e-30;

// What a head's queries see of some entries.
struct Seen {
  at::Tensor weights;  // (n,S)
  at::Tensor output;   // (n,d)
};

Seen look(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& bias) {
  at::Tensor logits = at::mm(queries, keys.t()) / std::sqrt(static_cast<double>(keys.size(1)));
  if (bias.defined()) logits = logits + bias;
  const at::Tensor weights = at::softmax(logits, 1);
  return {weights, at::mm(weights, values)};
}

class Grkv final : public PerHeadMethod {
 public:
  struct Options {
    NestedPlugin scores{{{"method", "critical_kv"},
                         {"scores", {{"method", "snapkv"}, {"window", 32}, {"kernel", 5}, {"pool", "avg"}}}}};
    int64_t n_queries = 32;
    double ridge = 0.01;
    double value_cap = 0.1;
    double key_cap = 0.025;
    double guard = 0.1;
    void fields(auto&& visit) {
      visit("scores", scores, "method that evicts: {method: NAME, option: value}");
      visit("n_queries", n_queries, "tokens whose queries are to be answered as before", between(1, 4096));
      visit("ridge", ridge, "penalty on what keys and values are moved by, above 0", more_than(0, 1e6));
      visit("value_cap", value_cap, "largest change of a value relative to its length; 0: unchanged", between(0, 10));
      visit("key_cap", key_cap, "largest change of a key relative to its length; 0: unchanged", between(0, 10));
      visit("guard", guard, "part of the kept entries, of highest score, that stays as it is, 0 to 1", between(0, 1));
    }
    void complete(const std::string& pointer, Problems& problems) {
      InnerScores::complete(scores.value, "grkv", pointer + "/scores", problems);
    }
  };
  explicit Grkv(const Options& options) : options_(options), inner_(options.scores.value) {}

  std::string published_queries() const override { return "context_prefill"; }
  at::Tensor scores(const HeadProblem& problem) const override { return inner_.of(problem); }
  std::vector<at::Tensor> score_heads(const std::vector<HeadProblem>& problems) const override {
    return inner_.of(problems);
  }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    const at::Tensor queries = chosen_queries(problem);
    const Around around = template_of(problem);
    const at::Tensor target =
        look(queries, around.with(problem.keys, around.keys), around.with(problem.values, around.values),
             around.bias_with(problem.bias, problem.keys.size(0)))
            .output;
    constexpr double kTotalWeight = 6;
    const double w = kTotalWeight * static_cast<double>(query_heads(problem)) / static_cast<double>(queries.size(0));
    return [this, problem, queries, around, target, w, scores = scores_once(problem)](int64_t target_len) {
      HeadFit fit = inner_.fit(problem, target_len);
      refit(queries, around, target, scores, w, fit);
      return fit;
    };
  }

 private:
  // The template's entries around the span: first what stands before it, then what stands behind.
  struct Around {
    at::Tensor keys, values;  // (P,d) float64
    at::Tensor bias;          // (P) float64 or undefined

    at::Tensor with(const at::Tensor& span, const at::Tensor& own) const {
      return at::cat({span.to(at::kDouble), own.to(span.device())});
    }
    at::Tensor bias_with(const at::Tensor& span, int64_t length) const {
      if (!span.defined() && !bias.defined()) return {};
      const at::TensorOptions exact = keys.options();
      return at::cat({span.defined() ? span.to(at::kDouble) : at::zeros({length}, exact),
                      bias.defined() ? bias : at::zeros({keys.size(0)}, exact)});
    }
  };

  static Around template_of(const HeadProblem& problem) {
    const at::TensorOptions exact = problem.keys.options().dtype(at::kDouble);
    if (problem.request == nullptr) {
      const at::Tensor none = at::zeros({0, problem.keys.size(1)}, exact);
      return {none, none, {}};
    }
    const auto [prefix_len, suffix_len] = problem.request->compactable;
    const HeadEntries whole = problem.request->cache.layer(problem.layer).head(problem.kv_head);
    const HeadEntries both =
        join_entries({whole.slice(0, prefix_len), whole.slice(whole.size() - suffix_len, suffix_len)});
    return {both.keys.to(at::kDouble), both.values.to(at::kDouble),
            both.bias.defined() ? both.bias.to(at::kDouble) : both.bias};
  }

  // (g n_queries, d) float64, at the context's last position.
  at::Tensor chosen_queries(const HeadProblem& problem) const {
    const int64_t n_heads = query_heads(problem), n_tokens = problem.queries.size(0) / n_heads;
    const int64_t count = std::min(options_.n_queries, n_tokens);
    const at::Tensor edges = at::arange(count + 1, at::TensorOptions(at::kLong)).mul(n_tokens).div(count, "floor");
    const at::Tensor middle = (edges.narrow(0, 0, count) + edges.narrow(0, 1, count) - 1).div(2, "floor");
    std::vector<at::Tensor> rows;
    for (int64_t head = 0; head < n_heads; ++head) rows.push_back(middle + head * n_tokens);
    const at::Tensor index = at::cat(rows);
    const at::Tensor queries = problem.queries.index_select(0, index.to(problem.queries.device())).to(at::kFloat);
    if (problem.request == nullptr) return queries.to(at::kDouble);
    const at::Tensor positions = problem.request->queries->positions();
    if (!positions.defined()) return queries.to(at::kDouble);
    const DecoderSpec& spec = problem.request->model.spec();
    const at::Tensor forward = (problem.request->cache.next_position() - 1) - positions.index_select(0, index);
    return turned(queries, turn_at(spec, forward, queries.options()), 1).to(at::kDouble);
  }

  // Which of the fit's entries may move, (t) bool: all but the best by score.
  at::Tensor movable(const at::Tensor& scores, const HeadFit& fit) const {
    const int64_t t = fit.indices.size(0);
    const auto fixed = static_cast<int64_t>(options_.guard * static_cast<double>(t));
    const at::Tensor best = best_keys(scores.index_select(0, fit.indices), fixed);
    return at::ones({t}, fit.indices.options().dtype(at::kBool)).index_fill(0, best, 0);
  }

  // base with `delta` added where it may move, shortened to the cap, as the model's dtype holds it: (t,d) float64.
  static at::Tensor moved(const at::Tensor& base, const at::Tensor& delta, const at::Tensor& may_move, double cap,
                          at::ScalarType dtype) {
    const at::Tensor mask = may_move.unsqueeze(1).to(at::kDouble);
    const double limit = cap * (base * mask).norm().item<double>();
    const double length = (delta * mask).norm().item<double>();
    double scale = std::min(1.0, limit / std::max(length, kLeastLength));
    for (int tries = 0; tries < 5; ++tries, scale *= 0.9) {
      const at::Tensor rounded = (base + delta * mask * scale).to(dtype).to(at::kDouble);
      const at::Tensor now = at::where(may_move.unsqueeze(1), rounded, base);
      if ((now - base).norm().item<double>() <= limit) return now;
    }
    return base;
  }

  // dV: ridge regression in its dual, a system of n.
  at::Tensor value_step(const at::Tensor& weights, const at::Tensor& residual, double w) const {
    const at::Tensor a = weights * std::sqrt(w);
    at::Tensor gram = at::mm(a, a.t());
    gram.diagonal().add_(options_.ridge);
    return at::mm(a.t(), at::cholesky_solve(residual * std::sqrt(w), at::linalg_cholesky(gram)));
  }

  // dK by conjugate gradients on (J J' + ridge) u = residual, all with sqrt(w).
  at::Tensor key_step(const at::Tensor& queries, const at::Tensor& weights, const at::Tensor& values,
                      const at::Tensor& output, const at::Tensor& residual, double w) const {
    constexpr int kSteps = 16;
    constexpr double kTolerance = 1e-6;
    const double scale = 1 / std::sqrt(static_cast<double>(queries.size(1))), root = std::sqrt(w);
    const auto forward = [&](const at::Tensor& delta) {
      const at::Tensor pushed = weights * at::mm(queries, delta.t()) * scale;  // (n,t)
      return (at::mm(pushed, values) - pushed.sum(1, /*keepdim=*/true) * output) * root;
    };
    const auto adjoint = [&](const at::Tensor& u) {
      const at::Tensor along = at::mm(u, values.t()) - (u * output).sum(1, /*keepdim=*/true);
      return at::mm((weights * along).t(), queries) * (scale * root);
    };
    const at::Tensor rhs = residual * root;
    at::Tensor u = at::zeros_like(rhs), left = rhs, direction = rhs;
    const double norm = rhs.norm().item<double>();
    double squares = norm * norm;
    for (int step = 0; step < kSteps && norm > 0; ++step) {
      const at::Tensor image = forward(adjoint(direction)) + direction * options_.ridge;
      const double along = squares / (direction * image).sum().item<double>();
      u = u + direction * along;
      left = left - image * along;
      const double now = left.square().sum().item<double>();
      if (std::sqrt(now) <= kTolerance * norm) break;
      direction = left + direction * (now / squares);
      squares = now;
    }
    return adjoint(u);
  }

  void refit(const at::Tensor& queries, const Around& around, const at::Tensor& target, const at::Tensor& scores,
             double w, HeadFit& fit) const {
    const int64_t t = fit.indices.size(0);
    const at::Tensor may_move = movable(scores, fit);
    if (!may_move.any().item<bool>()) return;
    const at::ScalarType dtype = fit.keys.scalar_type();
    const at::Tensor keys = fit.keys.to(at::kDouble), values = fit.values.to(at::kDouble);
    const at::Tensor bias = around.bias_with(fit.bias, t), mask = may_move.to(at::kDouble);
    const auto seen = [&](const at::Tensor& k, const at::Tensor& v) {
      return look(queries, around.with(k, around.keys), around.with(v, around.values), bias);
    };
    const auto objective = [&](const at::Tensor& k, const at::Tensor& v) {
      const double misfit = (seen(k, v).output - target).square().sum().item<double>() * w;
      const double moves = ((k - keys).square().sum() + (v - values).square().sum()).item<double>();
      const double value = misfit + options_.ridge * moves;
      return std::isfinite(value) ? value : std::numeric_limits<double>::infinity();
    };
    const Seen before = seen(keys, values);
    const at::Tensor value_delta = value_step(before.weights.narrow(1, 0, t) * mask, target - before.output, w);
    const at::Tensor new_values = moved(values, value_delta, may_move, options_.value_cap, dtype);
    const Seen between = seen(keys, new_values);
    const at::Tensor key_delta = key_step(queries, between.weights.narrow(1, 0, t) * mask, new_values, between.output,
                                          target - between.output, w);
    const at::Tensor new_keys = moved(keys, key_delta, may_move, options_.key_cap, dtype);
    double least = objective(keys, values);
    if (const double by_values = objective(keys, new_values); by_values < least) {
      least = by_values;
      fit.values = new_values.to(dtype);
      fit.notes["heads_with_new_values"] = 1;
    }
    if (objective(new_keys, new_values) < least) {
      fit.values = new_values.to(dtype);
      fit.keys = new_keys.to(dtype);
      fit.notes["heads_with_new_values"] = 1;
      fit.notes["heads_with_new_keys"] = 1;
    }
  }

  Options options_;
  InnerScores inner_;
};

KVC_REGISTER_METHOD(Grkv, "grkv", "arXiv:2605.31105");

}  // namespace
}  // namespace kvc
