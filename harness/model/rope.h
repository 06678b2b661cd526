// Rotary position embeddings as numbers: one frequency for each pair of a head's dimensions and one factor on cosine
// and sine, from a DecoderSpec. Su et al., arXiv:2104.09864; every kind of stretching as transformers'
// modeling_rope_utils.py computes it, float32 roundings included: models were trained on those.
//
// YaRN's factor is part of the tables: rotated queries and keys both carry it, so their logits carry its square, and
// keys in a cache need nothing more.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "harness/model/decoder_spec.h"
#include "harness/model/elementwise.h"

namespace kvc {

struct RopeFrequencies {
  std::vector<float> frequencies;  // (d / 2), radians per position
  double factor = 1.0;             // on cosine and sine
};

// kDynamic: transformers takes the frequencies from the length of each forward pass, so keys of one text read in pieces
// would be rotated by different ones. Here they are those of one text length, spec.rope_dynamic_positions, at every
// position: what transformers computes in one pass over a text of that length, and what it computes without any scaling
// when that length is within rope_original_max_positions.
// Throws Error(kData) for numbers that give no finite frequencies.
RopeFrequencies rope_frequencies(const DecoderSpec& spec);

// Cosine and sine times the factor for every position up to spec.max_positions, computed only up to the positions in
// use: a model of a million positions that reads short texts holds short tables. Angles are rounded to float32, which
// counts positions exactly up to kMostPositions. Copies share the tables; safe to use from several threads.
class RopeTables {
 public:
  static constexpr int64_t kMostPositions = 1 << 24;

  RopeTables() = default;
  // Throws as rope_frequencies(), and for spec.max_positions beyond kMostPositions.
  RopeTables(const DecoderSpec& spec, const c10::Device& device);

  // At least positions 0 .. n_positions - 1 <= max_positions. Elsewhere than on the CPU always the whole tables, so
  // that their addresses never change.
  RotaryTables covering(int64_t n_positions) const;

 private:
  struct Grown;
  std::shared_ptr<Grown> grown_;
};

}  // namespace kvc
