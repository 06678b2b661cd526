// Keeps the entries to which the very last query attends most, the same ones in every head of a layer; values as they
// were, no bias. Oren et al., "Transformers are Multi-State RNNs" (TOVA, token omission via attention),
// arXiv:2401.06104.
//
// Score of an entry: attention weight of the last token's query, mean over all query heads of the layer.
//
// Differences from the paper: it drops one entry with every token that is read or written; here the cut is made once,
// and the last token is that of the text the query source reads. The softmax runs over the compactable entries alone.
// Where the heads of a layer hold different numbers of entries (a cache compacted before), their entries do not
// correspond, and every head is scored with its own group of query heads: the note heads_scored_alone counts them. So
// it is where one head comes without its model.
#include <ATen/ATen.h>

#include "harness/api/published_queries.h"
#include "methods/parts/key_selection.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class Tova final : public ScoredKeys, public PublishedQueries {
 public:
  using Options = NoOptions;
  explicit Tova(const Options& /*options*/) {}

  bool needs_queries() const override { return true; }
  std::string published_queries() const override { return "context_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    if (scored_alone(problem)) return mean_attention(window_queries(problem, 1), problem.keys, problem.bias);
    const CompactionRequest& request = *problem.request;
    const LayerKv& layer = request.cache.layer(problem.layer);
    const at::Tensor queries = request.queries->window(problem.layer, 1);  // (Hkv, g, d)
    const int64_t first = request.compactable.prefix_len;
    at::Tensor sum = at::zeros({problem.keys.size(0)}, problem.keys.options().dtype(at::kFloat));
    for (int64_t head = 0; head < layer.n_kv_heads(); ++head) {
      const auto span = [&](const at::Tensor& whole) { return whole.narrow(0, first, sum.size(0)); };
      sum += mean_attention(queries.select(0, head), span(layer.head_keys(head)),
                            layer.bias.defined() ? span(layer.head_bias(head)) : at::Tensor());
    }
    return sum.div_(layer.n_kv_heads());  // groups are of one size
  }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t largest_target_len) const override {
    return
        [fitter = ScoredKeys::prepare(problem, largest_target_len), alone = scored_alone(problem)](int64_t target_len) {
          HeadFit fit = fitter(target_len);
          if (alone) fit.notes["heads_scored_alone"] = 1;
          return fit;
        };
  }

 private:
  static at::Tensor mean_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias) {
    return summarize_attention(queries, keys, bias, KeyScore::kMean).scores;
  }

  static bool scored_alone(const HeadProblem& problem) {
    if (problem.request == nullptr || problem.request->queries == nullptr) return true;
    const LayerKv& layer = problem.request->cache.layer(problem.layer);
    for (int64_t head = 0; head < layer.n_kv_heads(); ++head) {
      if (layer.head_len(head) != layer.head_len(problem.kv_head)) return true;
    }
    return false;
  }
};

KVC_REGISTER_METHOD(Tova, "tova", "arXiv:2401.06104");

}  // namespace
}  // namespace kvc
