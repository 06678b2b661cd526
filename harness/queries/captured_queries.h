// Queries caught while the model reads a text: a seeded subset of the tokens for the fits, the last tokens whole for
// windows.
//
// Letters: L layers, Hkv KV heads, Hq query heads, g query heads per KV head, d head dimension, N tokens read, s of
// them kept, n = g s.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "harness/api/query_source.h"
#include "harness/queries/text_keys.h"

namespace kvc {

// `n_drawn` of the numbers 0 .. n - 1, ascending, drawn from `seed` without replacement; all where n <= n_drawn.
std::vector<int64_t> draw_sorted(int64_t n, int64_t n_drawn, std::uint64_t seed);

// Tokens whose queries make at most `max_queries` (rounded up to a multiple of g) per KV head.
inline int64_t tokens_for(int64_t max_queries, int64_t group_size) {
  return (max_queries + group_size - 1) / group_size;
}

// (c, Hq, d) -> (Hkv, g c, d): query head by query head, tokens in their order within each.
at::Tensor pool_queries(const at::Tensor& queries, int64_t group_size);

// Throws Error(kUsage) unless 0 <= n_tokens <= kMaxWindow and the text has as many.
void check_window(int64_t n_tokens, int64_t available, const std::string& source);

// Collects from a decoder's tap; holds (L, Hkv, n, d) and the last LayerQueries::kMaxWindow tokens, never all tokens of
// all layers.
class QueryCapture {
 public:
  // The tokens to come stand at `positions` (N). At most ceil(max_queries / g) of them are kept for every query head: a
  // random subset without replacement drawn from `seed`, sorted, the same for all layers and heads. So n <=
  // max_queries rounded up to a multiple of g. `source` names the query source in errors.
  QueryCapture(const Decoder& decoder, const std::vector<int64_t>& positions, int64_t max_queries, std::uint64_t seed,
               std::string source);

  // Rotated queries (c, Hq, d) of the tokens [first_token, first_token + c) of the N. Every token of every layer comes
  // once.
  void take(int64_t layer, int64_t first_token, const at::Tensor& queries);
  // The normed hidden states (c, hidden) that the same tokens' queries are projected from.
  void take_inputs(int64_t layer, int64_t first_token, const at::Tensor& normed);

  // `keys`: of the text, which had n_skipped tokens before those that give queries; none where the text is the context
  // itself. `notes` become those of the result. Throws Error(kInternal) if a token never came.
  std::unique_ptr<LayerQueries> finish(TextKeys keys, int64_t n_skipped, Json notes = Json::object()) &&;

 private:
  int64_t group_size_;
  int64_t n_tokens_;
  int64_t n_window_;              // last tokens kept whole
  std::vector<int64_t> kept_;     // (s) token numbers, ascending
  std::vector<int64_t> n_taken_;  // (L) tokens seen so far
  std::string source_;
  at::Tensor positions_;         // (n)
  at::Tensor window_positions_;  // (g n_window)
  at::Tensor queries_;           // (L, Hkv, g, s, d)
  at::Tensor window_;            // (L, Hkv, g, n_window, d)
  at::Tensor input_norms_;       // (L, N) float32; undefined before take_inputs()
  at::TensorOptions norm_options_;
};

// Positions of the queries of the tokens `kept`, (g s) int64 on the CPU, in the order of pool_queries().
at::Tensor query_positions(const std::vector<int64_t>& positions, const std::vector<int64_t>& kept, int64_t group_size);

}  // namespace kvc
