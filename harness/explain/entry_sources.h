// Which entry of the full cache each entry of a compact one came from. A compact cache does not record it: entries are
// recognised by their key, which methods that choose entries leave as it was to the last bit, else, where both caches
// end at the same position, by their value.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/kv/kv_cache.h"

namespace kvc {

struct EntrySources {
  static constexpr int64_t kUnknown = -1;

  // By layer: for every packed row of the compact cache the packed row of the full one, or kUnknown.
  std::vector<std::vector<int64_t>> row;
  int64_t by_key = 0;    // entries, over all layers and heads
  int64_t by_value = 0;  // whose key is another, as after a method that changes keys
  int64_t unknown = 0;   // merged, trained, or of another text

  // What the compact cache changed of the entries it kept.
  bool values_changed = false, keys_changed = false, has_bias = false;
};

// An entry of the full cache is the source of one entry at most. Both caches are of the same model. Cost: reads both
// once, on the CPU.
EntrySources find_sources(const KvCache& compact, const KvCache& full);

}  // namespace kvc
