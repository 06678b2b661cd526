// Keeps keys that others cannot be combined to and that are attended to from both sides; values as they were, no bias.
// Chari, Van Durme, "Compactor: Calibrated Query-Agnostic KV Cache Compression with Approximate Leverage Scores",
// arXiv:2507.08143.
//
//   l_j = leverage score of the key before RoPE (see leverage)
//   a_j = |v_j| mean over the group's query heads of sum_i softmax_j(q_i k_j), averaged over 3 neighbours; entries are
//   cut
//         into chunks, queries and keys of a chunk see each other whatever their order, logits are not over sqrt(d)
//   score_j = blending z(l_j) + z(a_j)        z over all heads of the layer: less the mean, over the deviation
//
// `n_first` first and `n_last` last entries of the text, template included, are kept before all others and take no
// part. Follows kvpress (CompactorPress: chunks of 256, sketch 48, 8 first, 4 last; blending is the evicted fraction
// where it is not given) and the authors' engine (compactor-vllm: the same scale, a last chunk that is shorter; kvpress
// fills it up with keys of zeros, which get attention too).
//
// The queries are the context's own, one for every entry: context_prefill with max_queries of at least the text. Where
// it subsamples them a chunk's sum is scaled up from those there are. Queries of another text are laid over the article
// in their order, which suits repeat_prefill; the note heads_with_other_queries counts that. A budget shared by score
// uses a blending of 0.35 where it is to follow the target, which then is not known yet. Where the layer's heads hold
// different numbers of entries (a cache compacted before) or queries are on-policy z is over the head alone, and the
// note heads_scored_alone counts that; there keys are taken as they are rotated.
#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "methods/parts/inner_scores.h"
#include "methods/parts/key_selection.h"
#include "methods/parts/leverage_scores.h"
#include "methods/parts/query_reach.h"
#include "methods/parts/rotation.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class Compactor final : public PerHeadMethod {
 public:
  struct Options {
    double blending = -1;
    int64_t chunk = 256;
    int64_t sketch = 48;
    int64_t n_first = 8;
    int64_t n_last = 4;
    void fields(auto&& visit) {
      visit("blending", blending, "weight of the leverage scores; -1: the fraction that is evicted");
      visit("chunk", chunk, "entries that attend to each other", between(1, 65536));
      visit("sketch", sketch, "dimensions that keys are projected to at random; 0: exact leverage scores",
            between(0, 4096));
      visit("n_first", n_first, "first entries of the text, template included, kept before all others", at_least(0));
      visit("n_last", n_last, "last entries of the text, template included, kept before all others", at_least(0));
    }
    void check(const OptionCheck& fail) const {
      if (!(blending == -1 || (blending >= 0 && blending <= 1000)))
        fail("blending", fmt::format("must be -1 or 0 to 1000; got {}", blending), "default: -1");
    }
  };
  explicit Compactor(const Options& options) : options_(options) {}

  std::string published_queries() const override { return "context_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    constexpr double kUnknownTarget = 0.35;
    return blended(problem, normalised(problem), options_.blending < 0 ? kUnknownTarget : options_.blending);
  }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    Json notes = Json::object();
    if (heads_of_layer(problem).alone) notes["heads_scored_alone"] = 1;
    if (problem.request != nullptr && !own_places(problem).defined()) notes["heads_with_other_queries"] = 1;
    return [this, problem, notes, parts = normalised(problem)](int64_t target_len) {
      const double evicted = 1 - static_cast<double>(target_len) / static_cast<double>(problem.keys.size(0));
      const at::Tensor scores = blended(problem, parts, options_.blending < 0 ? evicted : options_.blending);
      HeadFit fit = keep(problem, best_keys(scores, target_len));
      fit.notes = notes;
      return fit;
    };
  }

 private:
  struct Parts {
    at::Tensor leverage, attention;  // (T') float32, of the entries that compete
  };
  struct Span {
    int64_t first, length;  // the entries that compete
  };

  Span span(const HeadProblem& problem) const {
    const int64_t source_len = problem.keys.size(0);
    const int64_t behind = problem.request == nullptr ? 0 : problem.request->compactable.suffix_len;
    const int64_t first = article_sinks(problem, options_.n_first);
    const int64_t last = std::clamp<int64_t>(options_.n_last - behind, 0, source_len - first);
    return {first, source_len - first - last};
  }

  at::Tensor blended(const HeadProblem& problem, const Parts& parts, double blending) const {
    const Span competing = span(problem);
    at::Tensor scores = at::full({problem.keys.size(0)}, std::numeric_limits<float>::infinity(),
                                 problem.keys.options().dtype(at::kFloat));
    scores.narrow(0, competing.first, competing.length).copy_(parts.leverage * blending + parts.attention);
    return scores;
  }

  Parts normalised(const HeadProblem& problem) const {
    const LayerHeads layer = heads_of_layer(problem);
    std::vector<at::Tensor> leverage, attention;
    for (const HeadProblem& head : layer.heads) {
      const Parts parts = raw(head);
      leverage.push_back(parts.leverage);
      attention.push_back(parts.attention);
    }
    const auto z = [&](const std::vector<at::Tensor>& all) {
      constexpr double kLeast = 1e-6;
      const at::Tensor whole = at::stack(all);
      if (whole.numel() < 2) return at::zeros_like(all[layer.own]);
      return (all[layer.own] - whole.mean()) / whole.std().clamp_min(kLeast);
    };
    return {z(leverage), z(attention)};
  }

  Parts raw(const HeadProblem& problem) const {
    const Span competing = span(problem);
    if (competing.length == 0) {
      const at::Tensor none = at::zeros({0}, problem.keys.options().dtype(at::kFloat));
      return {none, none};
    }
    const at::Tensor plain = unrotated_keys(problem);
    const auto part = [&](const at::Tensor& whole) { return whole.narrow(0, competing.first, competing.length); };
    const at::Tensor leverage =
        leverage_scores(part(plain.defined() ? plain : problem.keys), options_.sketch, problem.seed);
    const at::Tensor weighted = chunk_attention(problem, competing) * part(problem.values).to(at::kFloat).norm(2, 1);
    return {leverage, at::avg_pool1d(weighted.view({1, 1, -1}), {3}, {1}, {1}).flatten()};
  }

  // The entry that each query stands at, counted from the head's first, (n) int64; undefined where queries are not
  // those of the head's own entries.
  static at::Tensor own_places(const HeadProblem& problem) {
    if (problem.request == nullptr) return at::arange(problem.queries.size(0), at::TensorOptions(at::kLong));
    const Context& context = problem.request->context;
    const at::Tensor positions = problem.request->queries->positions();
    if (problem.keys.size(0) != context.article_len() || !positions.defined()) return {};
    const at::Tensor places = positions - (problem.request->compactable.prefix_len + context.first_position);
    return places.ge(0).logical_and(places.lt(problem.keys.size(0))).any().item<bool>() ? places : at::Tensor();
  }

  // Rows of `queries` and the competing entry that each stands at, ascending within each query head.
  static at::Tensor places_of(const HeadProblem& problem, const Span& competing, int64_t n_heads) {
    const at::Tensor own = own_places(problem);
    if (own.defined()) return own - competing.first;
    const int64_t n = problem.queries.size(0) / n_heads;
    const at::Tensor row = at::arange(n, at::TensorOptions(at::kLong));
    return row.mul(competing.length).div(std::max<int64_t>(1, n), "floor").repeat({n_heads});
  }

  // Sum over the chunk's queries of the weights that they give each competing entry, mean over query heads: (T').
  at::Tensor chunk_attention(const HeadProblem& problem, const Span& competing) const {
    const int64_t n_heads = query_heads(problem);
    const at::Tensor places = places_of(problem, competing, n_heads);
    const at::Tensor keys = problem.keys.narrow(0, competing.first, competing.length).to(at::kFloat);
    at::Tensor sums = at::ones({competing.length}, keys.options());
    for (int64_t first = 0; first < competing.length; first += options_.chunk) {
      const int64_t length = std::min(options_.chunk, competing.length - first);
      const at::Tensor rows = places.ge(first).logical_and(places.lt(first + length)).nonzero().flatten();
      if (rows.size(0) == 0) continue;  // nobody asked: every entry alike
      const at::Tensor queries = problem.queries.index_select(0, rows.to(problem.queries.device())).to(at::kFloat);
      const at::Tensor weights = at::softmax(at::mm(queries, keys.narrow(0, first, length).t()), 1);
      sums.narrow(0, first, length).copy_(weights.mean(0) * static_cast<double>(length));
    }
    return sums;
  }

  Options options_;
};

KVC_REGISTER_METHOD(Compactor, "compactor", "arXiv:2507.08143");

}  // namespace
}  // namespace kvc
