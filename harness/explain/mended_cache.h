// A compact cache with some of what the compaction took away put back: the experiments from which a cause is read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/explain/entry_sources.h"
#include "harness/explain/smallest_spans.h"
#include "harness/kv/head_table.h"

namespace kvc {

// What can be put right in the entries that a compact cache kept.
enum class Repair : std::uint8_t {
  kBias,      // bias 0, as in the full cache
  kMass,      // one bias for a head: its kept entries together get the attention mass of all that the full cache has
  kValues,    // the original values
  kKeys,      // the original keys
  kFit,       // bias 0, the original keys and values
  kPosition,  // the question stands at the position it has behind the full cache
};
const char* repair_name(Repair repair);  // "bias", "mass", ...

// Letters: L layers, Hkv KV heads.
class MendedCache {
 public:
  // Spans count the tokens of the context, and so the entries of every head of `full`, which is of the context's
  // tokens. All arguments must outlive this.
  MendedCache(const KvCache& full, const KvCache& compact, const TokenSpan& document);

  const EntrySources& sources() const { return sources_; }
  // The token of an entry of the compact cache, by layer and packed row; kUnknown where its source is not known.
  int64_t token_of(int64_t layer, int64_t row) const {
    return tokens_[static_cast<size_t>(layer)][static_cast<size_t>(row)];
  }
  // Of the entries that the full cache has of these tokens, how many the compact one kept: 0 to 1.
  double kept_share(const TokenSpans& spans) const;

  // Repairs that would change the cache; kMass only where `mass_bias` was set.
  std::vector<Repair> possible_repairs() const;
  // For kMass: log mass of the full head less that of the kept entries without bias, [L][Hkv].
  void set_mass_bias(HeadTable<double> bias) { mass_bias_ = std::move(bias); }

  // The compact cache with a repair on kept entries of these tokens. Entries of unknown source stay as they are.
  KvCache repaired(Repair repair, const TokenSpans& spans) const;
  // The compact cache with the original entries of these tokens put back, without bias, in every head that lacks them.
  // `repair`, if given, is made on all entries of the document first. The next position is the full cache's.
  KvCache restored(const TokenSpans& spans, const std::optional<Repair>& repair = std::nullopt) const;

 private:
  LayerKv repaired_layer(Repair repair, int64_t layer, const TokenSpans& spans) const;
  LayerKv restored_layer(const LayerKv& base, int64_t layer, const TokenSpans& spans) const;

  const KvCache& full_;
  const KvCache& compact_;
  TokenSpan document_;
  EntrySources sources_;
  std::vector<std::vector<int64_t>> tokens_;  // by layer: of each packed row of the compact cache
  std::vector<std::vector<bool>> kept_;       // by layer: packed rows of the full cache that are somebody's source
  HeadTable<double> mass_bias_;
};

}  // namespace kvc
