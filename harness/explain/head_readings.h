// What the heads of a compact cache give to the tokens of an answer, beside what the full cache gives them.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/explain/asker.h"
#include "harness/explain/explanation.h"
#include "harness/explain/mended_cache.h"

namespace kvc {

// Letters: L layers, Hkv KV heads, g query heads of each, n tokens, d head dimension.
class HeadReadings {
 public:
  // The queries, on the full cache, of the prompt's last token and of the answer's tokens but the last: those from
  // which the answer's tokens are predicted, at most 32. One pass over `text`.
  HeadReadings(const Model& model, const KvCache& full, const ReadText& text);

  // Every head, those first that read `spans` and have gone wrong: by weight_full * output_error (by output_error alone
  // where there are no spans).
  std::vector<HeadReading> readings(const KvCache& compact, const MendedCache& mended, const TokenSpans& spans) const;
  // Attention weight of each token of `document` in the full cache, summed over heads, mean over the queries.
  std::vector<double> token_weights(const TokenSpan& document) const;
  // MendedCache::set_mass_bias: means over the queries.
  HeadTable<double> mass_bias(const KvCache& compact, const MendedCache& mended, const TokenSpan& document) const;

 private:
  at::Tensor queries(int64_t layer, int64_t kv_head) const;  // (g n, d)

  const KvCache& full_;
  int64_t group_size_;
  std::vector<at::Tensor> queries_;  // (n, Hq, d) a layer
};

}  // namespace kvc
