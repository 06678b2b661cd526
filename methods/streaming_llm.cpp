// Keeps the first n_sink entries of the text ("attention sinks") and the most recent ones; values as they were, no
// bias. Xiao et al., "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453.
//
// Sinks are counted from the text's first token, as in the paper. The chat template in front of the article is kept
// anyway, so behind a template of four tokens or more the target is spent on recent entries alone.
//
// Positions: by default kept keys keep their rotation, as for every method of this harness. `rerotate: true` counts
// positions inside the cache, as the paper does: sinks and template are turned forward until they stand right in front
// of the recent entries. (kvpress's KeyRerotationPress turns all entries to positions from 0 and lets the text go on
// behind them; rotations being relative that is the same up to a common turn, and here the text goes on at its true
// position.) Needs a model, the whole text and a cache that was not compacted before: in such a cache nobody knows
// where entries stand, so they stay, and the note heads_not_rerotated counts that.
//
// Difference from the paper: it rolls the window as tokens are generated; here one finished context is cut once.
#include <ATen/ATen.h>

#include <algorithm>

#include "harness/core/error.h"
#include "methods/parts/rotation.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class StreamingLlm final : public PerHeadMethod {
 public:
  struct Options {
    int64_t n_sink = 4;
    bool rerotate = false;
    void fields(auto&& visit) {
      visit("n_sink", n_sink, "first entries of the text, template included, always kept", at_least(0));
      visit("rerotate", rerotate, "positions count inside the cache: sinks come right before the recent entries");
    }
  };
  explicit StreamingLlm(const Options& options) : options_(options) {}

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    if (options_.rerotate) check_rerotation(problem);
    return [this, problem, n_sink = article_sinks(problem, options_.n_sink)](int64_t target_len) {
      const at::TensorOptions index = problem.keys.options().dtype(at::kLong);
      const int64_t n_first = std::min(n_sink, target_len);
      const int64_t source_len = problem.keys.size(0);
      HeadFit fit = keep(problem, at::cat({at::arange(n_first, index),
                                           at::arange(source_len - (target_len - n_first), source_len, index)}));
      if (options_.rerotate && target_len < source_len) close_gap(problem, n_first, source_len - target_len, fit);
      return fit;
    };
  }

 private:
  static void check_rerotation(const HeadProblem& problem) {
    if (problem.request == nullptr) {
      throw Error(ErrorKind::kUsage, "streaming_llm with rerotate needs a model's positions, and there is no model",
                  "method", "run it on a model's cache, or leave rerotate out");
    }
    const CompactionRequest& request = *problem.request;
    if (static_cast<int64_t>(request.context.tokens.size()) < request.cache.next_position()) {
      throw Error(ErrorKind::kUsage,
                  "streaming_llm with rerotate moves the template, so it cannot cut a part of a text", "method",
                  "leave rerotate out, or do not use it inside chunked");
    }
  }

  // Moves the template and the first n_first kept entries forward over the `gap` evicted ones.
  static void close_gap(const HeadProblem& problem, int64_t n_first, int64_t gap, HeadFit& fit) {
    const CompactionRequest& request = *problem.request;
    if (problem.keys.size(0) != request.context.article_len()) {
      fit.notes["heads_not_rerotated"] = 1;
      return;
    }
    const auto moved = [&](const at::Tensor& keys) {
      const at::Tensor by = at::full({keys.size(0)}, gap, at::TensorOptions(at::kLong));
      const at::Tensor exact = keys.to(at::kFloat);
      return turned(exact, turn_at(request.model.spec(), by, exact.options()), 1).to(keys.scalar_type());
    };
    const LayerKv& layer = request.cache.layer(problem.layer);
    const int64_t prefix_len = request.compactable.prefix_len;
    if (prefix_len > 0) fit.prefix_keys = moved(layer.head_keys(problem.kv_head).narrow(0, 0, prefix_len));
    if (n_first > 0) {
      fit.keys =
          at::cat({moved(fit.keys.narrow(0, 0, n_first)), fit.keys.narrow(0, n_first, fit.keys.size(0) - n_first)});
    }
  }

  Options options_;
};

KVC_REGISTER_METHOD(StreamingLlm, "streaming_llm", "arXiv:2309.17453");

}  // namespace
}  // namespace kvc
