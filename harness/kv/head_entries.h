// Entries of one KV head, cut out of caches and put together to new ones.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace kvc {

// Views of a cache or tensors of their own. d: head dimension.
struct HeadEntries {
  at::Tensor keys;    // (n, d), model dtype
  at::Tensor values;  // (n, d), model dtype
  at::Tensor bias;    // (n), float32; undefined = zeros

  int64_t size() const { return keys.size(0); }
  // Views of entries [first, first + n).
  HeadEntries slice(int64_t first, int64_t n) const;
};

// The pieces one behind the other, copied. The bias is undefined when every piece's is.
HeadEntries join_entries(const std::vector<HeadEntries>& pieces);

}  // namespace kvc
