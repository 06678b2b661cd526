// Keeps the keys of smallest L2 norm, values as they were, no bias. Devoto et al., "A Simple and Effective L2
// Norm-Based Strategy for KV Cache Compression", arXiv:2406.11430.
//
// Differences from the paper: it leaves the first two layers alone, here every layer obeys its budget; the first n_sink
// entries of the text are kept before all others (0 gives the paper's rule; behind a chat template, which is kept
// anyway, nothing changes). An old bias plays no part in the score.
#include <ATen/ATen.h>

#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class KeyNorm final : public ScoredEntries {
 public:
  struct Options {
    int64_t n_sink = 4;
    void fields(auto&& visit) {
      visit("n_sink", n_sink, "first entries of the text, template included, kept before all others", at_least(0));
    }
  };
  explicit KeyNorm(const Options& options) : options_(options) {}

  // keys is (H, T, d). The entries of highest score are kept.
  at::Tensor score_entries(const at::Tensor& keys, const at::Tensor& /*values*/,
                           const HeadProblem& any) const override {
    return with_sinks_first(at::norm(keys.to(at::kFloat), 2, -1).neg(), article_sinks(any, options_.n_sink));
  }

 private:
  Options options_;
};

KVC_REGISTER_METHOD(KeyNorm, "key_norm", "arXiv:2406.11430");

}  // namespace
}  // namespace kvc
