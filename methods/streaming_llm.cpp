// Keeps the first n_sink entries of the text ("attention sinks") and the most recent ones; values as they were, no
// bias. Xiao et al., "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453.
//
// Sinks are counted from the text's first token, as in the paper. The chat template in front of the article is kept
// anyway, so behind a template of four tokens or more the target is spent on recent entries alone.
//
// Differences from the paper: it rolls the window as tokens are generated and numbers positions inside the cache; here
// one finished context is cut once and kept keys keep their rotation, as for every method of this harness.
#include <ATen/ATen.h>

#include <algorithm>

#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class StreamingLlm final : public PerHeadMethod {
 public:
  struct Options {
    int64_t n_sink = 4;
    void fields(auto&& visit) { visit("n_sink", n_sink, "first entries of the text, template included, always kept"); }
    void check(const OptionCheck& fail) const {
      if (n_sink < 0) fail("n_sink", "is negative", "0 or more");
    }
  };
  explicit StreamingLlm(const Options& options) : options_(options) {}

  bool needs_queries() const override { return false; }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    return [problem, n_sink = article_sinks(problem, options_.n_sink)](int64_t target_len) {
      const at::TensorOptions index = problem.keys.options().dtype(at::kLong);
      const int64_t n_first = std::min(n_sink, target_len);
      const int64_t source_len = problem.keys.size(0);
      return keep(problem, at::cat({at::arange(n_first, index),
                                    at::arange(source_len - (target_len - n_first), source_len, index)}));
    };
  }

 private:
  Options options_;
};

KVC_REGISTER_METHOD(StreamingLlm, "streaming_llm", "arXiv:2309.17453");

}  // namespace
}  // namespace kvc
