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

#include <utility>
#include <vector>

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
    if (scored_alone(problem)) return of_heads({problem}).front();
    const CompactionRequest& request = *problem.request;
    const LayerKv& layer = request.cache.layer(problem.layer);
    const int64_t first = request.compactable.prefix_len;
    std::vector<HeadProblem> heads;
    for (int64_t head = 0; head < layer.n_kv_heads(); ++head) {
      const auto span = [&](const at::Tensor& whole) { return whole.narrow(0, first, problem.keys.size(0)); };
      HeadProblem other = problem;
      other.kv_head = head;
      other.keys = span(layer.head_keys(head));
      other.bias = layer.bias.defined() ? span(layer.head_bias(head)) : at::Tensor();
      other.window_queries = [&request, layer_index = problem.layer, head](int64_t n) {
        return request.queries->window(layer_index, n).select(0, head);
      };
      heads.push_back(std::move(other));
    }
    return mean_of(of_heads(heads));
  }
  // All heads of a layer: their mean is formed once.
  std::vector<at::Tensor> score_heads(const std::vector<HeadProblem>& problems) const override {
    if (problems.empty() || scored_alone(problems.front())) return of_heads(problems);
    const auto n_kv_heads = static_cast<size_t>(problems.front().request->cache.n_kv_heads());
    if (problems.size() != n_kv_heads || problems.front().layer != problems.back().layer) {
      return ScoredKeys::score_heads(problems);
    }
    return std::vector<at::Tensor>(n_kv_heads, mean_of(of_heads(problems)));
  }

 protected:
  Json notes(const HeadProblem& problem) const override {
    Json notes = reach_notes(problem, options_.range());
    if (scored_alone(problem)) notes["heads_scored_alone"] = 1;
    return notes;
  }

 private:
  std::vector<at::Tensor> of_heads(const std::vector<HeadProblem>& problems) const {
    return window_attention_scores(problems, 1, options_.range(), KeyScore::kMean);
  }
  // Groups are of one size.
  static at::Tensor mean_of(const std::vector<at::Tensor>& scores) {
    at::Tensor sum = at::zeros_like(scores.front());
    for (const at::Tensor& own : scores) sum += own;
    return sum.div_(static_cast<double>(scores.size()));
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
