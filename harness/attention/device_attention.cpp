#include "harness/attention/device_attention.h"

#include <ATen/ATen.h>

#include "harness/attention/product_attention.h"
#include "harness/attention/ragged_attention.h"
#include "harness/attention/ragged_attention_gpu.h"
#include "harness/attention/sequence_runs.h"

namespace kvc {

namespace {

using Numbers = std::vector<int64_t>;

PartialAttention long_tail(FlashAttention* flash, const at::Tensor& queries, const at::Tensor& keys,
                           const at::Tensor& values, const Numbers& lengths, const Numbers& offsets) {
  if (flash_takes(queries, keys, values)) return flash_tail(queries, keys, values, lengths.front(), flash);
  PartialAttention tail = nothing_seen(queries);
  tail_by_products(queries, keys, values, lengths, offsets, tail);
  return tail;
}

}  // namespace

const DeviceAttention& gpu_attention() {
  static const DeviceAttention ways{&library_flash_attention,
                                    [](const at::Tensor& queries, const LayerKv& prefix, const at::Tensor& keys,
                                       const at::Tensor& values, const Numbers& lengths, const Numbers& offsets) {
                                      if (gpu::takes(queries, keys, values, keys.size(1)) &&
                                          gpu::takes(queries, prefix.keys, prefix.values, prefix.n_kv_heads())) {
                                        return gpu::context_attention(queries, prefix, keys, values, lengths, offsets);
                                      }
                                      PartialAttention all = nothing_seen(queries), before = nothing_seen(queries);
                                      tail_by_products(queries, keys, values, lengths, offsets, all);
                                      prefix_by_products(queries, prefix, before);
                                      if (prefix.n_entries() > 0) all = merge(before, all);
                                      return all.output.to(queries.scalar_type());
                                    },
                                    &tail_attention};
  return ways;
}

bool flash_serves(const at::Tensor& queries, const LayerKv& prefix) {
  return prefix.n_entries() > 0 && !prefix.bias.defined() &&
         queries.size(0) * queries.size(1) > kMostKernelRows * prefix.n_kv_heads() &&
         flash_takes(queries, prefix.keys, prefix.values);
}

at::Tensor context_by(const DeviceAttention& ways, const at::Tensor& queries, const LayerKv& prefix,
                      const at::Tensor& keys, const at::Tensor& values, const Numbers& lengths,
                      const Numbers& sequence_offsets) {
  const bool by_flash = flash_serves(queries, prefix);
  const auto few = [&](const at::Tensor& own, const at::Tensor& own_keys, const at::Tensor& own_values,
                       const Numbers& own_lengths, const Numbers& own_offsets) -> PartialAttention {
    if (by_flash) return ways.tail(own, own_keys, own_values, own_lengths, own_offsets);
    return {ways.context(own, prefix, own_keys, own_values, own_lengths, own_offsets), {}};
  };
  const auto many = [&](const at::Tensor& own, const at::Tensor& own_keys, const at::Tensor& own_values,
                        const Numbers& own_lengths, const Numbers& own_offsets) -> PartialAttention {
    PartialAttention tail = long_tail(ways.flash, own, own_keys, own_values, own_lengths, own_offsets);
    if (by_flash) return tail;
    if (prefix.n_entries() > 0) {
      const PartialAttention before = nothing_seen(own);
      prefix_by_products(own, prefix, before);
      tail = merge(before, tail);
    }
    return {tail.output.to(own.scalar_type()), {}};
  };
  const PartialAttention tails = attend_in_runs(queries, keys, values, lengths, sequence_offsets, kLongRows, few, many);
  if (!by_flash || queries.size(0) == 0) return tails.output.to(queries.scalar_type());
  return merge(flash_prefix(queries, prefix, ways.flash), tails).output.to(queries.scalar_type());
}

}  // namespace kvc
