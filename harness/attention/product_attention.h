// Attention by matrix products and a softmax in memory, in float32: for any device, dtype and layout. Some 66 bytes of
// traffic a logit, so on a GPU only for what its kernels do not take. Arguments as in ragged_attention.h.
#pragma once

#include <ATen/core/Tensor.h>

#include "harness/kv/kv_cache.h"
#include "harness/math/attention.h"

namespace kvc {

// Output zeros (N, Hq, d) float32 and log-sum-exp -inf (N, Hq), to be written to.
PartialAttention nothing_seen(const at::Tensor& queries);

// Write what prefix_attention() and tail_attention() return into `out`, as nothing_seen() makes it.
void prefix_by_products(const at::Tensor& queries, const LayerKv& prefix, const PartialAttention& out);
void tail_by_products(const at::Tensor& queries, const TailView& tails, const PartialAttention& out);

}  // namespace kvc
