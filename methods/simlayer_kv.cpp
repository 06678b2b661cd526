// Layers whose last query looks at the first and the most recent entries alone ("lazy" layers) keep just these; all
// other layers keep everything. How much is left is measured, not asked for. Zhang et al., "SimLayerKV: A Simple
// Framework for Layer-Level KV Cache Reduction", arXiv:2410.13846.
//
//   share = mean over the layer's query heads and the last n_last queries of their weight on the text's first n_initial
//           entries and on the n_recent before those queries
//   lazy where share > threshold: n_initial and n_recent - n_last entries of the text are left
//
// Follows kvpress (SimLayerKVPress). It advises thresholds of 0.9 for Llama 3, 0.65 for Llama 2, 0.8 for Mistral and
// 0.85 for Qwen. A text of no more than n_initial + n_recent + n_last entries is left as it is. First and recent
// entries count from the ends of the whole text; the template's are kept anyway.
//
// Differences: where the query source reads a text behind the context, its own weight counts as neither, and none of
// the context's last entries are the queries' own. A cache that was compacted before has no first and recent entries:
// it is left as it is, and the note layers_without_positions counts its layers. Queries are off-policy.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <limits>

#include "harness/api/nested_method.h"
#include "harness/api/read_document.h"
#include "harness/core/error.h"
#include "harness/math/attention.h"

namespace kvc {
namespace {

class SimLayerKv final : public CompactionMethod {
 public:
  struct Options {
    double threshold = 0.9;
    int64_t n_initial = 4;
    int64_t n_recent = 1024;
    int64_t n_last = 1;
    void fields(auto&& visit) {
      visit("threshold", threshold, "share above which a layer is lazy, 0 to 1", between(0, 1));
      visit("n_initial", n_initial, "first entries of the text that a lazy layer keeps, template included",
            at_least(0));
      visit("n_recent", n_recent, "last entries of the text that a lazy layer keeps, template included",
            at_least(n_last));
      visit("n_last", n_last, "last queries that are looked at, at most 128", between(1, LayerQueries::kMaxWindow));
    }
  };
  explicit SimLayerKv(const Options& options)
      : options_(options),
        streaming_(Registry<CompactionMethod>::instance().create("streaming_llm", {{"n_sink", options.n_initial}})) {}

  bool needs_target() const override { return false; }
  std::string published_queries() const override { return "context_prefill"; }

  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    const c10::InferenceMode inference;
    if (request.queries->on_policy()) {
      throw Error(ErrorKind::kUsage,
                  "simlayer_kv looks at all layers before anything is compacted, and on-policy "
                  "queries are made while it is",
                  "queries", "set on_policy: false");
    }
    Json notes = {{"lazy_layers", 0}};
    HeadBudget budget{source_lengths(request.cache, request.compactable), {}};
    for (int64_t layer = 0; layer < request.cache.n_layers(); ++layer) {
      const auto lengths = budget.target_len.layer(layer);
      const LayerKv& kv = request.cache.layer(layer);
      if (!whole_text(request, kv)) {
        notes["layers_without_positions"] = notes.value("layers_without_positions", 0) + 1;
        continue;
      }
      const int64_t n_entries = kv.head_len(0);
      if (n_entries <= options_.n_initial + options_.n_recent + options_.n_last) continue;
      if (!(share(request, layer) > options_.threshold)) continue;
      notes["lazy_layers"] = notes["lazy_layers"].get<int64_t>() + 1;
      const auto [prefix_len, suffix_len] = request.compactable;
      const int64_t first = std::max<int64_t>(0, options_.n_initial - prefix_len);
      const int64_t recent = std::max<int64_t>(0, options_.n_recent - options_.n_last - suffix_len);
      for (int64_t& length : lengths) length = std::min(length, first + recent);
    }
    CompactionRequest measured = request;
    measured.budgets = {std::move(budget)};
    measured.queries = nullptr;
    std::vector<Compaction> made = streaming_->compact(measured);
    made.front().notes.update(notes);
    return made;
  }

  // Mean weight of the last queries of all the layer's query heads on the first and the recent entries.
  double share(const CompactionRequest& request, int64_t layer) const {
    const LayerKv& kv = request.cache.layer(layer);
    const at::Tensor window = request.queries->window(layer, options_.n_last);
    double sum = 0;
    for (int64_t head = 0; head < kv.n_kv_heads(); ++head) {
      at::Tensor logits = attention_logits(window.select(0, head), kv.head_keys(head), kv.head_bias(head));  // (g w, N)
      const int64_t n_entries = logits.size(1);
      const QueryReach reach = request.queries->window_reach(layer, head, options_.n_last);
      at::Tensor mass = logits.logsumexp(1, /*keepdim=*/true);
      bool own = false;  // the queries are those of the context's last tokens
      if (reach.known()) {
        own = reach.positions.max().item<int64_t>() < request.cache.next_position();
        const at::Tensor entry = at::arange(n_entries, at::TensorOptions(at::kLong)).unsqueeze(0);
        logits.masked_fill_(entry.gt(reach.positions.unsqueeze(1)).to(logits.device()),
                            -std::numeric_limits<float>::infinity());
        mass =
            at::logaddexp(logits.logsumexp(1, /*keepdim=*/true), reach.text_log_mass.to(logits.device()).unsqueeze(1));
      }
      const at::Tensor weights = (logits - mass).exp().mean(0);
      const int64_t behind = own ? options_.n_last : 0;
      sum += weights.narrow(0, 0, options_.n_initial).sum().item<double>() +
             weights.narrow(0, n_entries - behind - options_.n_recent, options_.n_recent).sum().item<double>();
    }
    return sum / static_cast<double>(kv.n_kv_heads());
  }

 private:
  static bool whole_text(const CompactionRequest& request, const LayerKv& kv) {
    const auto n_tokens = static_cast<int64_t>(request.context.tokens.size());
    if (n_tokens != request.cache.next_position()) return false;
    for (int64_t head = 0; head < kv.n_kv_heads(); ++head) {
      if (kv.head_len(head) != n_tokens) return false;
    }
    return true;
  }

  Options options_;
  std::unique_ptr<CompactionMethod> streaming_;
};

KVC_REGISTER_METHOD(SimLayerKv, "simlayer_kv", "arXiv:2410.13846");

}  // namespace
}  // namespace kvc
