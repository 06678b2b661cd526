// Keys of the texts that gave the queries: what a query attends to behind the context.
//
// Letters: Hkv KV heads, g query heads per KV head, s tokens that give queries, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/kv/kv_cache.h"

namespace kvc {

class TextKeys {
 public:
  // Keeps the keys of `tails`, whose sequences are the next ones of the text, in order. Shares their tensors.
  void add(const Tails& tails);

  // queries (g, s, d) of one KV head, rotated; tokens (s), ascending, numbered through all sequences. For each query ln
  // sum exp(q k / sqrt(d)) over its own sequence up to itself: (g s) float32. One pass over the keys.
  at::Tensor log_mass(int64_t layer, int64_t kv_head, const at::Tensor& queries,
                      const std::vector<int64_t>& tokens) const;
  bool empty() const { return sequences_.empty(); }
  int64_t bytes() const;

 private:
  struct Sequence {
    int64_t first_token, length;
    size_t group;
    int64_t row;
  };
  std::vector<std::vector<at::Tensor>> groups_;  // [group][layer], (B, Hkv, capacity, d)
  std::vector<Sequence> sequences_;
};

}  // namespace kvc
