// How much to keep, and how it is spread over layers and heads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/kv/head_table.h"

namespace kvc {

// What the user asks for: a kept fraction in (0, 1] of the compactable span of a head, a number of its entries >= 1, or
// the bytes of the whole cache, template included.
struct TargetSize {
  enum class Unit : std::uint8_t { kFraction, kEntries, kBytes };
  Unit unit = Unit::kFraction;
  double fraction = 1.0;
  int64_t entries = 0;
  int64_t bytes = 0;

  // What a person writes, as a number or as text: a fraction in (0, 1] (0.05, .05, 5e-2, "5 %"), a number of entries
  // (512, "512 entries"), or bytes with their unit ("64 MiB", "1.5 GB", "800 kB", "4096 B"). 1 is the fraction,
  // everything; one entry is "1 entry". Anything else becomes a problem at `pointer`, and the result is not to be used.
  static TargetSize from_json(const Json& value, const std::string& pointer, Problems& problems);
  Json to_json() const;      // 0.05, "512 entries" or "64 MiB": what from_json reads
  std::string text() const;  // the same as text, for tables

  bool operator==(const TargetSize&) const = default;
};

// Sizes needed to turn a target in bytes into entries.
struct EntrySizes {
  int64_t entry_bytes = 0;   // 2 d times the dtype's bytes; 0: unknown, no target in bytes
  int64_t kept_entries = 0;  // template entries of all heads, kept at every target
  int64_t other_bytes = 0;   // of a cache besides its entries: the table of head offsets
};

// A budget whose heads share by score, within a layer or over the whole cache; or whose layers do, all heads of a layer
// alike. With kLayer and kAll a safeguard keeps heads from starving:
//   kFloor: every head keeps its own best floor_fraction * target_len entries, the rest goes to the best of all others
//           (kvpress's rule).
//   kBlend: floor_fraction * target_len + (1 - floor_fraction) * what the head would get if all entries competed freely
//           (Ada-KV's own, arXiv:2407.11550: 0.2 B / heads + 0.8 B*).
// Over all layers with a fraction of 0 both are KVzip's (arXiv:2505.23416).
//   kLayers: the i-th places of all layers compete, a layer's by the mean of its heads' i-th best scores
//            (KVCompose's composite entries, arXiv:2509.05165). Every layer keeps floor_fraction of an equal share.
//   kUncertainty: a layer's length is floor_fraction of an equal share plus a part of the rest in proportion to the
//            mean number of entries in which its heads hold mass_fraction of their scores' sum (ZigZagKV's,
//            arXiv:2412.09036); scores below 0 count as 0.
struct AdaptiveShare {
  enum class Scope : std::uint8_t { kLayer, kAll, kLayers, kUncertainty };
  enum class Safeguard : std::uint8_t { kFloor, kBlend };
  Scope scope = Scope::kLayer;
  double floor_fraction = 0.2;  // [0, 1]
  Safeguard safeguard = Safeguard::kFloor;
  double mass_fraction = 0.9;  // (0, 1], kUncertainty only

  // Layers are compared, so that all scores must be known before anything is fitted.
  bool over_layers() const { return scope != Scope::kLayer; }
  bool operator==(const AdaptiveShare&) const = default;
};

// Target length of every (layer, KV head).
struct HeadBudget {
  HeadTable<int64_t> target_len;  // entries of the compactable span to keep
  // When set, target_len is where the heads start from; its sum over the scope stays.
  std::optional<AdaptiveShare> adaptive;

  int64_t at(int64_t layer, int64_t kv_head) const { return target_len.at(layer, kv_head); }
};

// Every head keeps floor(fraction * its source_len), at least one entry, or `entries`; of `bytes` as many entries in
// all as fit beside the template's, spread in proportion to source_len, or all of them where more would fit (a fitted
// bias adds 4 bytes an entry, which is not known beforehand and not counted). Throws Error(kData)
// when a fraction of a source_len or the bytes give a head less than one entry, or more entries are asked than there
// are, naming the numbers; Error(kUsage) for bytes where `sizes` are unknown.
HeadBudget uniform_budget(const TargetSize& target, const HeadTable<int64_t>& source_len, const EntrySizes& sizes = {});

// Sum of all target lengths.
int64_t total_length(const HeadBudget& budget);

// Lengths in proportion to weights >= 0 that sum to `total` exactly, none above its source_len: what a full head cannot
// take goes to the others in proportion (water-filling); remainders of rounding go to the largest fractions, ties to
// the lower layer and head. When all weights left are 0 the rest is spread evenly. Throws Error(kInternal) if total
// exceeds the sum of source_len or the shapes differ.
HeadTable<int64_t> proportional_lengths(const HeadTable<double>& weights, const HeadTable<int64_t>& source_len,
                                        int64_t total);

// The lengths that `share` makes of `start` with the scores of each head's compactable entries, higher first. Equal
// scores: lower layer, head, entry first. Entries whose score is not a number come last.
HeadTable<int64_t> adaptive_lengths(const AdaptiveShare& share, const HeadTable<int64_t>& start,
                                    const HeadTable<std::vector<float>>& scores);

}  // namespace kvc
