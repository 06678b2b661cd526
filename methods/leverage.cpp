// Keeps the keys with the largest statistical leverage, those that the other keys can least be combined to; values as
// they were, no bias, no queries. One half of Compactor: Chari, Van Durme, "Compactor: Calibrated Query-Agnostic KV
// Cache Compression with Approximate Leverage Scores", arXiv:2507.08143.
//
//   X = (keys before RoPE, less their mean) Phi        Phi (d, sketch) Gaussian / sqrt(sketch)
//   score_i = x_i (X^T X + 0.01 I)^-1 x_i
//
// Follows kvpress (LeverageScorePress), whose jitter on the diagonal this is. sketch 0 leaves the sketch out: the exact
// scores, and no draw. Differences: Phi is drawn by the sweep's seed, for each head its own; scores are not brought to
// mean 0 and deviation 1 (the order is the same); where positions are unknown (a cache compacted before) keys are taken
// as they are rotated, and the note heads_rotated counts that.
#include <ATen/ATen.h>

#include "methods/parts/leverage_scores.h"
#include "methods/parts/rotation.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class Leverage final : public ScoredKeys {
 public:
  struct Options {
    int64_t sketch = 48;
    void fields(auto&& visit) {
      visit("sketch", sketch, "dimensions that keys are projected to at random; 0: exact", between(0, 4096));
    }
  };
  explicit Leverage(const Options& options) : options_(options) {}

  at::Tensor scores(const HeadProblem& problem) const override {
    const at::Tensor plain = unrotated_keys(problem);
    return leverage_scores(plain.defined() ? plain : problem.keys, options_.sketch, problem.seed);
  }

 protected:
  Json notes(const HeadProblem& problem) const override {
    const bool rotated = problem.request != nullptr && problem.keys.size(0) != problem.request->context.article_len();
    return rotated ? Json{{"heads_rotated", 1}} : Json::object();
  }

 private:
  Options options_;
};

KVC_REGISTER_METHOD(Leverage, "leverage", "arXiv:2507.08143, leverage scores");

}  // namespace
}  // namespace kvc
