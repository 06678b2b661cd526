// Chooses between the CPU's own kernels (float32 and bfloat16, rows contiguous, head dimension a multiple of 8), the
// GPU's, and a path in plain ATen for any device, dtype and layout.
#include "harness/attention/ragged_attention.h"

#include <ATen/ATen.h>

#include "harness/attention/device_attention.h"
#include "harness/attention/product_attention.h"
#include "harness/attention/ragged_attention_cpu_run.h"
#include "harness/attention/ragged_attention_gpu.h"

namespace kvc {
namespace {

// --- the CPU's own kernels ---

bool has_own_kernel(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
  const auto same = [&](const at::Tensor& tensor) {
    return tensor.is_cpu() && tensor.scalar_type() == queries.scalar_type() && tensor.is_contiguous();
  };
  const bool known_type = queries.scalar_type() == at::kFloat || queries.scalar_type() == at::kBFloat16;
  return known_type && queries.is_cpu() && same(keys) && same(values) && queries.size(2) % 8 == 0 &&
         queries.size(2) > 0;
}

// Collects tasks whose rows are tokens from `begin` on.
class CpuTasks {
 public:
  CpuTasks(const at::Tensor& queries, const PartialAttention& out, int64_t n_kv_heads)
      : queries_(queries.contiguous()),
        out_(out),
        shape_{queries.size(2), queries.size(1) / n_kv_heads, queries.size(1)} {}

  void add(int64_t kv_head, int64_t begin, int64_t end, const at::Tensor& keys, const at::Tensor& values,
           int64_t first_entry, const float* bias, int64_t n_keys, int64_t first_visible) {
    const int64_t head = begin * shape_.n_query_heads + kv_head * shape_.group;
    const int64_t row_bytes = shape_.head_dim * queries_.element_size();
    tasks_.push_back({.queries = static_cast<const char*>(queries_.const_data_ptr()) + head * row_bytes,
                      .output = out_.output.mutable_data_ptr<float>() + head * shape_.head_dim,
                      .log_sum_exp = out_.log_sum_exp.mutable_data_ptr<float>() + head,
                      .n_rows = (end - begin) * shape_.group,
                      .keys = static_cast<const char*>(keys.const_data_ptr()) + first_entry * row_bytes,
                      .values = static_cast<const char*>(values.const_data_ptr()) + first_entry * row_bytes,
                      .bias = bias,
                      .n_keys = n_keys,
                      .first_visible = first_visible});
  }
  void run() const { run_cpu_attention(cpu_attention_kernel(queries_.scalar_type() == at::kBFloat16), shape_, tasks_); }

 private:
  const at::Tensor queries_;
  const PartialAttention& out_;
  CpuAttentionShape shape_;
  std::vector<CpuAttentionTask> tasks_;
};

void prefix_on_cpu(const at::Tensor& queries, const LayerKv& prefix, const PartialAttention& out) {
  const at::Tensor bias = prefix.bias.defined() ? prefix.bias.contiguous() : at::Tensor();
  CpuTasks tasks(queries, out, prefix.n_kv_heads());
  for (int64_t h = 0; h < prefix.n_kv_heads(); ++h) {
    const int64_t first = prefix.head_offsets[static_cast<size_t>(h)];
    tasks.add(h, 0, queries.size(0), prefix.keys, prefix.values, first,
              bias.defined() ? bias.const_data_ptr<float>() + first : nullptr, prefix.head_len(h), 0);
  }
  tasks.run();
}

void tail_on_cpu(const at::Tensor& queries, const TailView& tails, const PartialAttention& out) {
  const int64_t n_kv_heads = tails.n_kv_heads(), capacity = tails.keys.size(2);
  CpuTasks tasks(queries, out, n_kv_heads);
  for (size_t b = 0; b < tails.lengths.size(); ++b) {
    const int64_t begin = tails.offsets[b], end = tails.offsets[b + 1], length = tails.lengths[b];
    for (int64_t h = 0; begin < end && h < n_kv_heads; ++h) {
      tasks.add(h, begin, end, tails.keys, tails.values, (static_cast<int64_t>(b) * n_kv_heads + h) * capacity, nullptr,
                length + end - begin, length + 1);
    }
  }
  tasks.run();
}

}  // namespace

PartialAttention prefix_attention(const at::Tensor& queries, const LayerKv& prefix) {
  if (gpu::takes(queries, prefix.keys, prefix.values, prefix.n_kv_heads())) {
    return gpu::prefix_attention(queries, prefix);
  }
  const PartialAttention out = nothing_seen(queries);
  if (has_own_kernel(queries, prefix.keys, prefix.values)) {
    prefix_on_cpu(queries, prefix, out);
    return out;
  }
  prefix_by_products(queries, prefix, out);
  return out;
}

PartialAttention tail_attention(const at::Tensor& queries, const TailView& tails) {
  if (gpu::takes(queries, tails.keys, tails.values, tails.n_kv_heads())) return gpu::tail_attention(queries, tails);
  const PartialAttention out = nothing_seen(queries);
  if (has_own_kernel(queries, tails.keys, tails.values)) {
    tail_on_cpu(queries, tails, out);
    return out;
  }
  tail_by_products(queries, tails, out);
  return out;
}

at::Tensor context_attention(const at::Tensor& queries, const LayerKv& prefix, const TailView& tails) {
  if (queries.is_cuda()) return context_by(gpu_attention(), queries, prefix, tails);
  PartialAttention attention = tail_attention(queries, tails);
  if (prefix.n_entries() > 0) attention = merge(prefix_attention(queries, prefix), attention);
  return attention.output.to(queries.scalar_type());
}

}  // namespace kvc
