#include "harness/api/read_document.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "harness/core/error.h"

namespace kvc {

HeadTable<int64_t> source_lengths(const KvCache& cache, const Compactable& span) {
  return HeadTable<int64_t>::make(cache.n_layers(), cache.n_kv_heads(), [&](int64_t layer, int64_t head) {
    return std::max<int64_t>(0, span.source_len(cache.layer(layer).head_len(head)));
  });
}

EntrySizes entry_sizes(const KvCache& cache, const Compactable& span) {
  const auto element = static_cast<int64_t>(cache.layer(0).keys.element_size());
  const int64_t n_heads = cache.n_layers() * cache.n_kv_heads();
  const int64_t n_offsets = n_heads + cache.n_layers();
  return {2 * cache.head_dim() * element, n_heads * (span.prefix_len + span.suffix_len),
          n_offsets * static_cast<int64_t>(sizeof(int64_t))};
}

HeadBudget every_head(const KvCache& cache, int64_t target_len) {
  return {{cache.n_layers(), std::vector<int64_t>(static_cast<size_t>(cache.n_kv_heads()), target_len)}, {}};
}

ReadDocument::ReadDocument(Context context_read, KvCache cache)
    : context(std::move(context_read)), full(std::move(cache)), span{context.prefix_len, context.suffix_len} {}

ReadDocument ReadDocument::read(const Model& model, const std::string& text) {
  const c10::InferenceMode inference;
  Context context = make_context(model, text);
  KvCache cache = model.decoder().prefill(context.tokens);
  return {std::move(context), std::move(cache)};
}

std::unique_ptr<LayerQueries> ReadDocument::queries(const Model& model, const QuerySource* source, std::uint64_t seed,
                                                    const std::vector<Question>* questions) const {
  const c10::InferenceMode inference;
  return source == nullptr ? nullptr : source->make({model, context, full, seed, questions});
}

std::vector<Compaction> ReadDocument::compact(const Model& model, const CompactionMethod& method,
                                              const LayerQueries* queries, std::vector<HeadBudget> budgets,
                                              std::uint64_t seed) const {
  const size_t expected = std::max<size_t>(1, budgets.size());
  std::vector<Compaction> made = method.compact({model, context, full, span, queries, std::move(budgets), seed});
  if (made.size() != expected) {
    throw Error(ErrorKind::kInternal, fmt::format("the method must return {} caches; got {}", expected, made.size()),
                "compaction", "this is a bug of the method; please report it");
  }
  return made;
}

}  // namespace kvc
