// Where reference queries come from: the queries that a compacted head must keep serving.
//
// Letters: n reference queries per KV head, Hkv KV heads, g query heads per KV head, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "harness/api/context.h"
#include "harness/api/dataset.h"
#include "harness/core/registry.h"

namespace kvc {

struct QueryRequest {
  const Model& model;
  const Context& context;
  const KvCache& cache;  // the full, uncompacted cache of `context`
  std::uint64_t seed = 0;
  // What will be asked of the compacted cache; only for a question_aware() source, null where nobody asks (kvc
  // compact).
  const std::vector<Question>* questions = nullptr;
};

// What queries of one KV head attend to besides the compactable entries: where they stand, and their own text.
struct QueryReach {
  // RoPE positions, (n) int64 on the CPU, in the order of the queries. A query of a token of the context does not see
  // the entries behind it.
  at::Tensor positions;
  // (n) float32, ln of sum exp(q k / sqrt(d)) over the tokens of the query's own text behind the context, up to
  // itself; minus infinity for tokens of the context.
  at::Tensor text_log_mass;
  bool known() const { return positions.defined(); }  // both or neither
};

// The queries of one document, asked layer by layer.
class LayerQueries {
 public:
  virtual ~LayerQueries() = default;

  // (Hkv, n, d) model dtype, rotated. Queries of all g query heads of a KV head are pooled, query head by query head,
  // tokens in order of their position within each. `compacted_below` holds the layers < `layer` as they will be used;
  // on-policy sources read it, others ignore it; nullptr = off-policy.
  virtual at::Tensor layer(int64_t layer, const KvCache* compacted_below) const = 0;
  // Queries of the last `n_tokens` tokens of the text the source reads, never subsampled: (Hkv, g * n_tokens, d), laid
  // out as above. Throws Error(kUsage) when n_tokens > kMaxWindow or the source reads no text.
  virtual at::Tensor window(int64_t layer, int64_t n_tokens) const = 0;

  // True when layer() reads the layers below as they were compacted: then layers are asked for in order, each once for
  // every budget, and window() speaks of the layer asked for last.
  virtual bool on_policy() const { return false; }
  // What the record should hold of how the queries came about, e.g. the texts they were read from.
  virtual Json notes() const { return Json::object(); }

  // RoPE position of every query of layer(), (n) int64 on the CPU in its order: what turns a query back to before its
  // rotation. Undefined where the source reads no text.
  virtual at::Tensor positions() const { return {}; }

  // True when the source knows what its queries attend to: it reads a text, off-policy.
  virtual bool knows_reach() const { return false; }
  // Of the queries of layer() and of window(), for one KV head; unknown where knows_reach() is false. Computed when
  // asked for: n N d multiplications for a text of N tokens. May be called from several threads.
  virtual QueryReach reach(int64_t /*layer*/, int64_t /*kv_head*/) const { return {}; }
  virtual QueryReach window_reach(int64_t /*layer*/, int64_t /*kv_head*/, int64_t /*n_tokens*/) const { return {}; }

  // False where the rows of layer() do not come query head by query head: several sources one after the other, or
  // vectors that belong to no head.
  virtual bool by_query_head() const { return true; }
  // L2 norm of the normed hidden state that each query was projected from, (n) float32 in layer()'s order; undefined
  // where the source does not know it: it reads no text or the context's own, or reads it on-policy.
  virtual at::Tensor input_norms(int64_t /*layer*/) const { return {}; }

  virtual int64_t n_queries() const = 0;  // n
  virtual int64_t bytes() const = 0;      // held in memory

  static constexpr int64_t kMaxWindow = 128;
};

// Takes queries while the context itself is read, so that it need not be read a second time.
class QueryListener {
 public:
  virtual ~QueryListener() = default;
  // As Decoder::ChunkTap: rotated queries (c, Hq, d) of the context's tokens [first_token, first_token + c).
  virtual void take(int64_t layer, int64_t first_token, const at::Tensor& queries) = 0;
  // Once, when the context is read: what QuerySource::make() would return, bit for bit.
  virtual std::unique_ptr<LayerQueries> finish() = 0;
};

class QuerySource {
 public:
  virtual ~QuerySource() = default;
  // True when the queries are those of the questions themselves: a cache made with them serves these questions alone,
  // and is never ranked with caches made before anything was asked.
  virtual bool question_aware() const { return false; }
  // Throws Error(kData) when the source cannot serve this context, e.g. too few positions left, with numbers and ways
  // out; Error(kUsage) when a question-aware one is given no question.
  virtual std::unique_ptr<LayerQueries> make(const QueryRequest& request) const = 0;
  // For sources whose text is the context, about to be read from its first token; nullptr: the source needs make().
  virtual std::unique_ptr<QueryListener> listen(const Model& /*model*/, const Context& /*context*/,
                                                std::uint64_t /*seed*/) const {
    return nullptr;
  }
};

#define KVC_REGISTER_QUERIES(Class, name, source) KVC_REGISTER(::kvc::QuerySource, Class, name, source)

}  // namespace kvc
