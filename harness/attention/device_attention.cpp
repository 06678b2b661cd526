#include "harness/attention/device_attention.h"

#include <ATen/ATen.h>

#include "harness/attention/product_attention.h"
#include "harness/attention/ragged_attention.h"
#include "harness/attention/ragged_attention_gpu.h"
#include "harness/attention/sequence_runs.h"

namespace kvc {

namespace {

PartialAttention long_tail(FlashAttention* flash, const at::Tensor& queries, const TailView& tails) {
  if (flash_takes(queries, tails.keys, tails.values))
    return flash_tail(queries, tails.keys, tails.values, tails.lengths.front(), flash);
  PartialAttention tail = nothing_seen(queries);
  tail_by_products(queries, tails, tail);
  return tail;
}

// Tensor cores where they serve the prefix. In float32 products are faster than kernels: some 66 bytes a logit against
// 4 d operations.
PartialAttention long_prefix(const DeviceAttention& ways, const at::Tensor& queries, const LayerKv& prefix) {
  if (flash_takes(queries, prefix.keys, prefix.values)) return ways.prefix(queries, prefix);
  PartialAttention before = nothing_seen(queries);
  prefix_by_products(queries, prefix, before);
  return before;
}

}  // namespace

const DeviceAttention& gpu_attention() {
  static const DeviceAttention ways{&library_flash_attention,
                                    [](const at::Tensor& queries, const LayerKv& prefix, const TailView& tails) {
                                      if (gpu::takes(queries, tails.keys, tails.values, tails.n_kv_heads()) &&
                                          gpu::takes(queries, prefix.keys, prefix.values, prefix.n_kv_heads())) {
                                        return gpu::context_attention(queries, prefix, tails);
                                      }
                                      PartialAttention all = tail_attention(queries, tails);
                                      if (prefix.n_entries() > 0) all = merge(prefix_attention(queries, prefix), all);
                                      return all.output.to(queries.scalar_type());
                                    },
                                    &prefix_attention, &tail_attention};
  return ways;
}

bool flash_serves(const at::Tensor& queries, const LayerKv& prefix) {
  return prefix.n_entries() > 0 && !prefix.bias.defined() &&
         queries.size(0) * queries.size(1) > kMostKernelRows * prefix.n_kv_heads() &&
         flash_takes(queries, prefix.keys, prefix.values);
}

at::Tensor context_by(const DeviceAttention& ways, const at::Tensor& queries, const LayerKv& prefix,
                      const TailView& tails) {
  const bool by_flash = flash_serves(queries, prefix);
  const auto few = [&](const at::Tensor& own, const TailView& own_tails) -> PartialAttention {
    if (by_flash) return ways.tail(own, own_tails);
    return {ways.context(own, prefix, own_tails), {}};
  };
  const auto many = [&](const at::Tensor& own, const TailView& own_tails) -> PartialAttention {
    PartialAttention tail = long_tail(ways.flash, own, own_tails);
    if (by_flash) return tail;
    if (prefix.n_entries() > 0) tail = merge(long_prefix(ways, own, prefix), tail);
    return {tail.output.to(own.scalar_type()), {}};
  };
  const PartialAttention seen = attend_in_runs(queries, tails, kLongRows, few, many);
  if (!by_flash || queries.size(0) == 0) return seen.output.to(queries.scalar_type());
  return merge(flash_prefix(queries, prefix, ways.flash), seen).output.to(queries.scalar_type());
}

}  // namespace kvc
