// A text the model has read: its context, its full cache, and the two calls that every experiment makes of them, for
// reference queries and for compaction.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "harness/api/compaction_method.h"

namespace kvc {

// Compactable entries of every head; 0 where a head has fewer than the span's two ends.
HeadTable<int64_t> source_lengths(const KvCache& cache, const Compactable& span);
// What targets in bytes are counted by.
EntrySizes entry_sizes(const KvCache& cache, const Compactable& span);
// The same target length for every head of a model of this many.
HeadBudget every_head(const KvCache& cache, int64_t target_len);

struct ReadDocument {
  Context context;
  KvCache full;      // of context.tokens, or an already compacted cache of them
  Compactable span;  // what may be compacted; by default the article

  ReadDocument(Context context_read, KvCache cache);
  // Prefill of make_context(model, text). Throws what make_context() throws.
  static ReadDocument read(const Model& model, const std::string& text);

  HeadTable<int64_t> source_lengths() const { return kvc::source_lengths(full, span); }
  EntrySizes entry_sizes() const { return kvc::entry_sizes(full, span); }
  // nullptr when `source` is. `questions`: for a question-aware one. Throws what QuerySource::make() throws.
  std::unique_ptr<LayerQueries> queries(const Model& model, const QuerySource* source, std::uint64_t seed,
                                        const std::vector<Question>* questions = nullptr) const;
  // One Compaction for each budget (one when there is none), counted. Throws what the method throws, and
  // Error(kInternal) when it returns another number of caches.
  std::vector<Compaction> compact(const Model& model, const CompactionMethod& method, const LayerQueries* queries,
                                  std::vector<HeadBudget> budgets, std::uint64_t seed) const;
};

}  // namespace kvc
