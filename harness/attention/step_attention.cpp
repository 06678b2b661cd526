#include "harness/attention/step_attention.h"

#include <ATen/ATen.h>

#include <vector>

#include "harness/attention/ragged_attention.h"
#include "harness/attention/ragged_attention_gpu.h"
#include "harness/core/error.h"

namespace kvc {

namespace {

std::vector<int64_t> numbers(const at::Tensor& table) {
  const auto* first = table.const_data_ptr<int64_t>();
  return {first, first + table.numel()};
}

}  // namespace

StepTables StepTables::of(int64_t batch, const c10::Device& device) {
  const at::TensorOptions options = at::TensorOptions().dtype(at::kLong).device(device);
  return {at::zeros({batch}, options), at::arange(batch + 1, options)};
}

bool serves_steps(const at::TensorOptions& options, int64_t n_kv_heads, int64_t head_dim) {
  if (options.device().is_cpu()) return true;
  const at::Tensor rows = at::empty({1, head_dim}, options);
  return gpu::takes(at::empty({1, n_kv_heads, head_dim}, options), rows, rows, n_kv_heads);
}

at::Tensor step_attention(const at::Tensor& queries, const LayerKv& prefix, const at::Tensor& keys,
                          const at::Tensor& values, const StepTables& tables) {
  if (queries.is_cpu()) {
    return context_attention(queries, prefix, {keys, values, numbers(tables.lengths), numbers(tables.offsets)});
  }
  if (!gpu::takes(queries, keys, values, keys.size(1)) ||
      !gpu::takes(queries, prefix.keys, prefix.values, prefix.n_kv_heads())) {
    throw Error(ErrorKind::kInternal, "no kernel takes these tensors", "step_attention", "");
  }
  return gpu::step_attention(queries, prefix, keys, values, tables);
}

void write_step(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& new_keys,
                const at::Tensor& new_values, const StepTables& tables) {
  if (!keys.is_cpu()) return gpu::write_step(keys, values, new_keys, new_values, tables);
  const std::vector<int64_t> lengths = numbers(tables.lengths);
  for (int64_t b = 0; b < keys.size(0); ++b) {
    const int64_t at = lengths[static_cast<size_t>(b)];
    keys[b].select(1, at).copy_(new_keys[b]);
    values[b].select(1, at).copy_(new_values[b]);
  }
}

}  // namespace kvc
