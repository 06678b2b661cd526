// Scores a part of the text by how its keys and values spread relative to the range of the part behind it; values as
// they were, no bias, no queries. Liang et al., "LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are
// Important", arXiv:2504.04704.
//
// Behind the sinks the entries are cut into parts of lag_size. With min and max of each channel over the next part,
//   s_i = softmax over the part's entries of std over channels of (x_i - min) / (max - min)
// for keys and for values; the score is their mean, replaced by its rank within the part unless cross_scoring is set
// (raw scores, with which heads can compete). Sinks, the last whole part and what is left behind it are kept first.
//
// Follows kvpress (constants and formulas). Differences: parts begin with the article, as the template in front of it
// is kept anyway and counts as sinks; where the target is less than what is kept first, the most recent entries stay (a
// choice the paper does not make); channels of a part without any spread count as 0 (there 0/0).
#include <ATen/ATen.h>

#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class LagKv final : public ScoredEntries {
 public:
  struct Options {
    int64_t n_sink = 4;
    int64_t lag_size = 128;
    bool cross_scoring = false;
    void fields(auto&& visit) {
      visit("n_sink", n_sink, "first entries of the text, template included, kept before all others", at_least(0));
      visit("lag_size", lag_size, "entries of a part", at_least(1));
      visit("cross_scoring", cross_scoring, "scores as they are instead of their ranks within a part");
    }
  };
  explicit LagKv(const Options& options) : options_(options) {}

 protected:
  at::Tensor score_entries(const at::Tensor& keys, const at::Tensor& values, const HeadProblem& any) const override {
    const int64_t n_heads = keys.size(0), source_len = keys.size(1), lag = options_.lag_size;
    const int64_t n_sink = article_sinks(any, options_.n_sink);
    const int64_t n_parts = (source_len - n_sink) / lag;
    // In (1, 2] for what is kept first: later ones before earlier ones.
    at::Tensor scores =
        at::arange(1, source_len + 1, keys.options().dtype(at::kFloat)).div_(source_len).add_(1).repeat({n_heads, 1});
    if (n_parts >= 2) {
      const auto parts = [&](const at::Tensor& x) {
        return x.narrow(1, n_sink, n_parts * lag).to(at::kFloat).view({n_heads, n_parts, lag, x.size(2)});
      };
      at::Tensor scored = (relative_spread(parts(keys)) + relative_spread(parts(values))) / 2;
      if (!options_.cross_scoring) {
        const auto order = [](const at::Tensor& x) {
          return at::argsort(x, /*stable=*/true, -1, /*descending=*/false);
        };
        scored = order(order(scored)).to(at::kFloat).div_(lag);
      }
      scores.narrow(1, n_sink, (n_parts - 1) * lag).copy_(scored.flatten(1));
    }
    return with_sinks_first(scores, n_sink);
  }

 private:
  // (H, p, lag, d) -> (H, p - 1, lag): every part against the one behind it.
  static at::Tensor relative_spread(const at::Tensor& parts) {
    const int64_t n = parts.size(1) - 1;
    const at::Tensor next = parts.narrow(1, 1, n), these = parts.narrow(1, 0, n);
    const at::Tensor least = next.amin(2, /*keepdim=*/true), range = next.amax(2, /*keepdim=*/true) - least;
    const at::Tensor relative = at::where(range.eq(0), at::zeros_like(these), (these - least) / range);
    return at::softmax(relative.std(-1), 2);
  }

  Options options_;
};

KVC_REGISTER_METHOD(LagKv, "lagkv", "arXiv:2504.04704");

}  // namespace
}  // namespace kvc
