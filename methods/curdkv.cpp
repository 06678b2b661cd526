// Keeps the entries whose keys and values stand out among their neighbours by squared norm; values as they were, no
// bias, no queries. Sengupta, Chaudhary, Chakraborty, "Value-Guided KV Compression for LLMs via Approximated CUR
// Decomposition" (CurDKV), arXiv:2509.15038.
//
// With k_i = |key_i|^2 and v_i = |value_i|^2, each divided by its sum over the window of `window` entries that i lies
// in, the score is k_i v_i (leverage: kv_product), k_i (key), v_i (value) or their mean (kv_avg), as a share of the
// head's sum. The squared norms stand for leverage scores, as in the authors' code and in kvpress, which this follows.
//
// Differences: the paper's random projection of keys and values to 20 dimensions before the norms is left out (kvpress:
// off by default); windows begin with the article, the template in front of it counts as sinks.
#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class CurDkv final : public ScoredEntries {
 public:
  struct Options {
    int64_t n_sink = 4;
    std::string leverage = "kv_product";
    int64_t window = 16;
    void fields(auto&& visit) {
      visit("n_sink", n_sink, "first entries of the text, template included, kept before all others", at_least(0));
      visit("leverage", leverage, "kv_product, kv_avg, key or value", one_of({"kv_product", "kv_avg", "key", "value"}));
      visit("window", window, "entries among which norms are compared; 0: the whole head", at_least(0));
    }
  };
  explicit CurDkv(const Options& options) : options_(options) {}

 protected:
  at::Tensor score_entries(const at::Tensor& keys, const at::Tensor& values, const HeadProblem& any) const override {
    const at::Tensor k = shares(keys), v = shares(values);
    at::Tensor scores = options_.leverage == "key"      ? k
                        : options_.leverage == "value"  ? v
                        : options_.leverage == "kv_avg" ? (k + v) / 2
                                                        : k * v;
    scores = scores / scores.sum(-1, /*keepdim=*/true).clamp_min(kTiny);
    return with_sinks_first(scores, article_sinks(any, options_.n_sink));
  }

 private:
  static constexpr double kTiny = 1e-30;  // a window of zeros has no shares

  // Squared norms as shares of their window's sum: (H, T, d) -> (H, T) float32.
  at::Tensor shares(const at::Tensor& rows) const {
    const at::Tensor squares = rows.to(at::kFloat).square().sum(-1);
    if (options_.window == 0) return squares;
    const int64_t n = squares.size(1), width = std::min(options_.window, n);
    const int64_t padding = (width - n % width) % width;
    const at::Tensor windows = at::constant_pad_nd(squares, {0, padding}).view({squares.size(0), -1, width});
    return (windows / windows.sum(-1, /*keepdim=*/true).clamp_min(kTiny)).flatten(1).narrow(1, 0, n);
  }

  Options options_;
};

KVC_REGISTER_METHOD(CurDkv, "curdkv", "arXiv:2509.15038");

}  // namespace
}  // namespace kvc
