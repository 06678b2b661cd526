// A long document compacted piece by piece: each chunk of the full cache is compacted alone, with reference queries of
// its own, and the pieces are put one behind the other. The KV-sliced form of arXiv:2602.16284 (the document is read
// once and whole; chunks keep what they saw and where they stand):
//
//   {method: chunked, size: 4096, then: {method: attention_matching, queries: repeat_prefill}}
//   {method: chunked, marker: "<text_", size: 8192, then: ...}   # a chunk begins at each marker in the text
//
// The article's entries are cut into chunks without gap or overlap. A chunk's queries are made over [template][chunk]
// [template's end] with the chunk's entries at their own positions and new text behind the whole document. Every head's
// target is shared over the chunks in proportion to their lengths. Memory beyond the full cache and the result: one
// chunk's slice and queries.
//
// Differences from the published code: the template's end stays in the cache, chunks are cut between tokens of the
// document as the model read it, and queries of the chunk's own text stand at its true positions.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>

#include "harness/api/nested_method.h"
#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "methods/text_chunks.h"

namespace kvc {
namespace {

// Builds a cache head by head from parts of others.
class CacheJoin {
 public:
  CacheJoin(int64_t n_layers, int64_t n_kv_heads)
      : heads_(static_cast<size_t>(n_layers), std::vector<Pieces>(static_cast<size_t>(n_kv_heads))) {}

  // Entries [first, first + length) of a head come behind what the head has.
  void add(const LayerKv& from, int64_t layer, int64_t kv_head, int64_t first, int64_t length) {
    heads_[static_cast<size_t>(layer)][static_cast<size_t>(kv_head)].push_back(from.head(kv_head).slice(first, length));
  }
  KvCache join(int64_t next_position) const {
    std::vector<LayerKv> layers;
    for (const auto& heads : heads_) {
      std::vector<HeadEntries> joined;
      for (const Pieces& pieces : heads) joined.push_back(join_entries(pieces));
      layers.push_back(pack_heads(joined));
    }
    return KvCache(std::move(layers), next_position);
  }

 private:
  using Pieces = std::vector<HeadEntries>;
  std::vector<std::vector<Pieces>> heads_;
};

class Chunked final : public CompactionMethod {
 public:
  struct Options {
    int64_t size = 4096;
    std::string marker;
    NestedPlugin then{{{"method", "attention_matching"}, {"queries", "repeat_prefill"}}};
    void fields(auto&& visit) {
      visit("size", size, "most tokens of a chunk", at_least(1));
      visit("marker", marker, "text at whose every occurrence a chunk begins; empty: chunks of `size` tokens");
      visit("then", then, "method for each chunk, with its own queries: {method: NAME, queries: NAME}");
    }
    void complete(const std::string& pointer, Problems& problems) {
      NestedMethod::complete(then.value, "chunked", pointer + "/then", problems);
    }
  };

  explicit Chunked(const Options& options) : options_(options), then_(options.then.value) {}

  bool needs_target() const override { return true; }

  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    const c10::InferenceMode inference;
    check_whole(request);
    const Stopwatch clock;
    const std::vector<TextChunk> chunks =
        cut_into_chunks(request.model.tokenizer(), request.context, options_.marker, options_.size);
    const size_t n_budgets = request.budgets.size();
    std::vector<CacheJoin> joins(n_budgets, CacheJoin(request.cache.n_layers(), request.cache.n_kv_heads()));
    for (CacheJoin& join : joins) add_all(request.cache, 0, request.compactable.prefix_len, join);
    std::vector<Json> notes(n_budgets, Json{{"chunks", chunks.size()}, {"then", Json::array()}});
    std::vector<double> own_s(n_budgets, 0.0);
    for (size_t c = 0; c < chunks.size(); ++c) {
      std::vector<Compaction> made = compact_chunk(request, chunks, c);
      for (size_t b = 0; b < n_budgets; ++b) {
        add_compacted(request.compactable, made[b].cache, joins[b]);
        notes[b]["then"].push_back(std::move(made[b].notes));
        own_s[b] += made[b].own_s;
      }
    }
    const int64_t suffix = request.compactable.suffix_len;
    for (CacheJoin& join : joins) {
      add_all(request.cache, request.cache.layer(0).head_len(0) - suffix, suffix, join);
    }
    std::vector<Compaction> list;
    double total_own = 0;
    for (const double seconds : own_s) total_own += seconds;
    for (size_t b = 0; b < n_budgets; ++b) {
      list.push_back({joins[b].join(request.cache.next_position()), 0, own_s[b], std::move(notes[b])});
    }
    for (Compaction& compaction : list) compaction.shared_s = std::max(0.0, clock.seconds() - total_own);
    return list;
  }

 private:
  // Chunks are parts of a text; entries that stand for several tokens belong to none.
  static void check_whole(const CompactionRequest& request) {
    const auto n_tokens = static_cast<int64_t>(request.context.tokens.size());
    for (int64_t layer = 0; layer < request.cache.n_layers(); ++layer) {
      for (int64_t head = 0; head < request.cache.n_kv_heads(); ++head) {
        if (request.cache.layer(layer).head_len(head) == n_tokens) continue;
        throw Error(ErrorKind::kData, "a cache that was compacted before has no chunks of text any more", "chunked",
                    "compact the document's full cache, or the compact one without chunks");
      }
    }
  }

  std::vector<Compaction> compact_chunk(const CompactionRequest& request, const std::vector<TextChunk>& chunks,
                                        size_t c) const {
    const TextChunk& chunk = chunks[c];
    const Compactable& span = request.compactable;
    CacheJoin join(request.cache.n_layers(), request.cache.n_kv_heads());
    add_all(request.cache, 0, span.prefix_len, join);
    add_all(request.cache, span.prefix_len + chunk.first, chunk.length, join);
    add_all(request.cache, request.cache.layer(0).head_len(0) - span.suffix_len, span.suffix_len, join);
    const KvCache slice = join.join(request.cache.next_position());
    const Context context = slice_context(request.context, span, chunk);
    const std::uint64_t seed = derive_seed(request.seed, fmt::format("chunk/{}", c));
    std::unique_ptr<LayerQueries> queries;
    if (then_.queries != nullptr) {
      queries = then_.queries->make({request.model, context, slice, derive_seed(seed, "queries")});
    }
    return then_.method->compact({request.model, context, slice, span, queries.get(), chunk_budgets(request, chunks, c),
                                  derive_seed(seed, "method")});
  }

  static Context slice_context(const Context& whole, const Compactable& span, const TextChunk& chunk) {
    Context slice;
    slice.prefix_len = span.prefix_len;
    slice.suffix_len = span.suffix_len;
    slice.first_position = chunk.first;
    const auto at = [&](int64_t token) { return whole.tokens.begin() + token; };
    slice.tokens.assign(at(0), at(span.prefix_len));
    slice.tokens.insert(slice.tokens.end(), at(span.prefix_len + chunk.first),
                        at(span.prefix_len + chunk.first + chunk.length));
    slice.tokens.insert(slice.tokens.end(), whole.tokens.end() - span.suffix_len, whole.tokens.end());
    return slice;
  }

  // Each head's target shared over the chunks in proportion to their lengths, exact in sum.
  static std::vector<HeadBudget> chunk_budgets(const CompactionRequest& request, const std::vector<TextChunk>& chunks,
                                               size_t c) {
    std::vector<double> weights;
    std::vector<int64_t> lengths;
    for (const TextChunk& chunk : chunks) {
      weights.push_back(static_cast<double>(chunk.length));
      lengths.push_back(chunk.length);
    }
    std::vector<HeadBudget> budgets = request.budgets;
    for (HeadBudget& budget : budgets) {
      for (int64_t& target_len : budget.target_len.all())
        target_len = proportional_lengths({weights}, {lengths}, target_len).all()[c];
    }
    return budgets;
  }

  static void add_all(const KvCache& cache, int64_t first, int64_t length, CacheJoin& join) {
    for (int64_t layer = 0; layer < cache.n_layers(); ++layer) {
      for (int64_t head = 0; head < cache.n_kv_heads(); ++head) {
        join.add(cache.layer(layer), layer, head, first, length);
      }
    }
  }

  // What lies between the template's entries.
  static void add_compacted(const Compactable& span, const KvCache& cache, CacheJoin& join) {
    for (int64_t layer = 0; layer < cache.n_layers(); ++layer) {
      for (int64_t head = 0; head < cache.n_kv_heads(); ++head) {
        const int64_t length = span.source_len(cache.layer(layer).head_len(head));
        join.add(cache.layer(layer), layer, head, span.prefix_len, length);
      }
    }
  }

  Options options_;
  NestedMethod then_;
};

KVC_REGISTER_METHOD(Chunked, "chunked", "KV-sliced chunks of arXiv:2602.16284");

}  // namespace
}  // namespace kvc
