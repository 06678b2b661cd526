// Queries caught while the model reads a text: a seeded subset of the tokens for the fits, the last tokens whole for
// windows.
//
// Letters: L layers, Hkv KV heads, g query heads per KV head, d head dimension, N tokens read, s of them kept, n = g s.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/api/query_source.h"

namespace kvc {

// Collects from a decoder's tap; holds (L, Hkv, n, d) and the last LayerQueries::kMaxWindow tokens, never all tokens of
// all layers.
class QueryCapture {
 public:
  // Of `n_tokens` tokens to come, at most ceil(max_queries / g) are kept for every query head: a random subset without
  // replacement drawn from `seed`, sorted, the same for all layers and heads (spec C.1). So n <= max_queries rounded up
  // to a multiple of g. `source` names the query source in errors.
  QueryCapture(const Decoder& decoder, int64_t n_tokens, int64_t max_queries, std::uint64_t seed, std::string source);

  // Rotated queries (c, Hq, d) of the tokens [first_token, first_token + c) of the N. Every token of every layer comes
  // once.
  void take(int64_t layer, int64_t first_token, const at::Tensor& queries);

  // The N tokens stand at positions first_position, first_position + 1, ...; without one the queries have no positions.
  // Throws Error(kInternal) if a kept token never came.
  std::unique_ptr<LayerQueries> finish(std::optional<int64_t> first_position = std::nullopt) &&;

 private:
  int64_t group_size_;
  int64_t n_tokens_;
  int64_t n_window_;              // last tokens kept whole
  std::vector<int64_t> kept_;     // (s) token numbers, ascending
  std::vector<int64_t> n_taken_;  // (L) tokens seen so far
  std::string source_;
  at::Tensor queries_;  // (L, Hkv, g, s, d)
  at::Tensor window_;   // (L, Hkv, g, n_window, d)
};

}  // namespace kvc
