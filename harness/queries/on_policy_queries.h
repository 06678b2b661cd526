// Queries of tokens that read the context as it was compacted: layer by layer, with the residual stream of the query
// tokens kept between layers. arXiv:2602.16284 runs every layer's queries from layer 0 (L(L+1)/2 layer passes); here
// each layer runs once for every budget.
//
// Letters: N query tokens, s of them kept, L layers, Hkv KV heads, g query heads per KV head, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/queries/read_queries.h"

namespace kvc {

// layer(l, below) with a cache: l is 0, or the layer after the one asked for last. The tokens' hidden states after
// layer l - 1 come from a pass of layer l - 1 alone over below->layer(l - 1), which was not yet compacted when that
// layer's own queries were asked for. The same tokens are drawn as off-policy, at the same positions; where nothing is
// lost by the compaction, the queries are those of off-policy.
//
// layer(l, nullptr) gives the off-policy queries, any l; asked in order it costs a layer's pass each.
//
// Not for several threads, but window() after layer() is.
//
// Memory: (N, hidden), the kept queries and the window of one layer, and one layer's keys and values of a pass's
// sequences.
class OnPolicyQueries final : public LayerQueries {
 public:
  // tokens, passes: of all sequences of `text`; positions: of the tokens that give queries.
  OnPolicyQueries(const QueryRequest& request, QueryText text, const ReadSettings& settings,
                  std::vector<int64_t> tokens, std::vector<ReadPass> passes, const std::vector<int64_t>& positions);

  at::Tensor layer(int64_t layer, const KvCache* compacted_below) const override;
  at::Tensor window(int64_t layer, int64_t n_tokens) const override;
  bool on_policy() const override { return true; }
  Json notes() const override { return text_.notes; }
  at::Tensor positions() const override { return positions_; }
  // Of the context's own tokens alone: what other texts attend to in a layer is known only once it is left.
  bool knows_reach() const override { return text_.is_context; }
  QueryReach reach(int64_t layer, int64_t kv_head) const override;
  QueryReach window_reach(int64_t layer, int64_t kv_head, int64_t n_tokens) const override;
  int64_t n_queries() const override { return positions_.size(0); }
  int64_t bytes() const override;

  // Layers that the tokens entered since this was made: a layer is entered with the projection of its queries, and left
  // with its attention and feed-forward when the next one is entered. L for one compaction.
  int64_t layers_entered() const { return n_entered_; }
  int64_t layers_left() const { return n_left_; }

 private:
  void enter(int64_t layer, const KvCache* compacted_below) const;
  at::Tensor leave(int64_t layer, const KvCache& cache) const;  // (N, hidden)
  at::Tensor project_queries(int64_t layer, const std::vector<int64_t>& tokens) const;

  Decoder decoder_;  // weights shared
  QueryText text_;
  std::string source_;
  std::vector<int64_t> tokens_;
  std::vector<ReadPass> passes_;
  std::vector<int64_t> kept_;    // token numbers that give queries
  std::vector<int64_t> last_;    // token numbers of the window
  std::vector<int64_t> places_;  // (N) position of every token
  at::Tensor positions_;         // (g s)
  KvCache full_;                 // shares the request's tensors

  mutable std::optional<int64_t> at_layer_;  // asked for last
  mutable bool off_policy_ = false;          // so far, over the full cache
  mutable at::Tensor hidden_;                // (N, hidden) into that layer
  mutable at::Tensor window_;                // (Hkv, g, w, d) of that layer
  mutable int64_t n_entered_ = 0;
  mutable int64_t n_left_ = 0;
};

}  // namespace kvc
