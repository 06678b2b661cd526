// Keeps the entries to which the very last query attends most, the same ones in every head of a layer; values as they
// were, no bias. Oren et al., "Transformers are Multi-State RNNs" (TOVA, token omission via attention),
// arXiv:2401.06104.
//
// Score of an entry: attention weight of the last token's query, mean over all query heads of the layer.
//
// Softmax range: as in the paper, all that the query attends to: template, entries up to its own position, and the
// tokens of its own text. `softmax_over: article` renormalises over the compactable entries.
//
// Differences from the paper: it drops one entry with every token that is read or written; here the cut is made once,
// and the last token is that of the text the query source reads. Where the heads of a layer hold different numbers of
// entries (a cache compacted before), their entries do not correspond, and every head is scored with its own group of
// query heads: the note heads_scored_alone counts them. So it is where one head comes without its model.
#include <ATen/ATen.h>

#include "methods/parts/query_reach.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class Tova final : public ScoredKeys {
 public:
  struct Options : SoftmaxRange {
    void fields(auto&& visit) { range_field(visit); }
  };
  explicit Tova(const Options& options) : options_(options) {}

  std::string published_queries() const override { return "context_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    if (scored_alone(problem)) return of_head(problem);
    const CompactionRequest& request = *problem.request;
    const LayerKv& layer = request.cache.layer(problem.layer);
    const int64_t first = request.compactable.prefix_len;
    at::Tensor sum = at::zeros({problem.keys.size(0)}, problem.keys.options().dtype(at::kFloat));
    for (int64_t head = 0; head < layer.n_kv_heads(); ++head) {
      const auto span = [&](const at::Tensor& whole) { return whole.narrow(0, first, sum.size(0)); };
      HeadProblem other = problem;
      other.kv_head = head;
      other.keys = span(layer.head_keys(head));
      other.bias = layer.bias.defined() ? span(layer.head_bias(head)) : at::Tensor();
      other.window_queries = [&](int64_t n) { return request.queries->window(problem.layer, n).select(0, head); };
      sum += of_head(other);
    }
    return sum.div_(layer.n_kv_heads());  // groups are of one size
  }

 protected:
  Json notes(const HeadProblem& problem) const override {
    Json notes = reach_notes(problem, options_.range());
    if (scored_alone(problem)) notes["heads_scored_alone"] = 1;
    return notes;
  }

 private:
  at::Tensor of_head(const HeadProblem& problem) const {
    return window_attention_scores(problem, 1, options_.range(), KeyScore::kMean);
  }

  static bool scored_alone(const HeadProblem& problem) {
    if (problem.request == nullptr || problem.request->queries == nullptr) return true;
    const LayerKv& layer = problem.request->cache.layer(problem.layer);
    for (int64_t head = 0; head < layer.n_kv_heads(); ++head) {
      if (layer.head_len(head) != layer.head_len(problem.kv_head)) return true;
    }
    return false;
  }

  Options options_;
};

KVC_REGISTER_METHOD(Tova, "tova", "arXiv:2401.06104");

}  // namespace
}  // namespace kvc
