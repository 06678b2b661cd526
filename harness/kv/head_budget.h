// How much to keep, and how it is spread over layers and heads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/config_text.h"

namespace kvc {

// What the user asks for, over the compactable span of a head: a kept fraction in (0, 1], or a number of entries >= 1.
struct TargetSize {
  enum class Unit : std::uint8_t { kFraction, kEntries };
  Unit unit = Unit::kFraction;
  double fraction = 1.0;
  int64_t entries = 0;

  // 0.05 (a number with a decimal point or exponent, in (0, 1]) or "512 entries". A bare integer is refused as
  // ambiguous, 0 and negatives and fractions above 1 as out of range; each becomes a problem at `pointer`, and the
  // result is not to be used.
  static TargetSize from_json(const Json& value, const std::string& pointer, Problems& problems);
  Json to_json() const;      // 0.05 or "512 entries": what from_json reads
  std::string text() const;  // the same as text, for tables

  bool operator==(const TargetSize&) const = default;
};

// Target length of every (layer, KV head).
struct HeadBudget {
  std::vector<std::vector<int64_t>> target_len;  // [L][Hkv], entries of the compactable span to keep

  int64_t at(int64_t layer, int64_t kv_head) const {
    return target_len[static_cast<size_t>(layer)][static_cast<size_t>(kv_head)];
  }
};

// Every head of every layer keeps floor(fraction * source_len) or `entries`, at most source_len. Throws Error(kData)
// when a fraction of source_len is less than one entry or more entries are asked than there are, naming the numbers.
HeadBudget uniform_budget(const TargetSize& target, int64_t source_len, int64_t n_layers, int64_t n_kv_heads);

}  // namespace kvc
