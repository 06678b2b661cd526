// Chooses between the CPU's own kernels (float32 and bfloat16, rows contiguous, head dimension a multiple of 8), the
// GPU's, and a path in plain ATen for any device, dtype and layout.
#include "harness/attention/ragged_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/attention/ragged_attention_cpu_run.h"
#include "harness/attention/ragged_attention_gpu.h"
#include "harness/attention/sequence_runs.h"

namespace kvc {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();
constexpr int64_t kMaxLogits = int64_t{1} << 24;  // 64 MiB of logits at a time

// A template, so that an older LibTorch, whose at::mm has no dtype of its result, compiles the other branch.
template <class Tensor>
constexpr bool kHasFloatProduct = requires(const Tensor& a) {
  at::mm(a, a, at::kFloat);
};

template <class Tensor>
Tensor float_product(const Tensor& a, const Tensor& b) {
  if constexpr (kHasFloatProduct<Tensor>) {
    return at::mm(a, b, at::kFloat);
  } else {
    return at::mm(a.to(at::kFloat), b.to(at::kFloat));
  }
}

// Tensor cores multiply bfloat16 and add in float32; only a GPU's LibTorch gives the sums unrounded.
bool multiplies_to_float(const at::Tensor& tensor) {
  return kHasFloatProduct<at::Tensor> && tensor.is_cuda() && tensor.scalar_type() == at::kBFloat16;
}

at::Tensor logits_of(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias) {
  if (!multiplies_to_float(queries)) return attention_logits(queries, keys, bias);
  at::Tensor logits = float_product(queries, keys.t());
  logits.mul_(1.0 / std::sqrt(static_cast<double>(queries.size(1))));
  return bias.defined() ? logits.add_(bias) : logits;
}

at::Tensor weighted_sum(const at::Tensor& weights, const at::Tensor& values) {
  if (multiplies_to_float(values)) return float_product(weights.to(at::kBFloat16), values);
  return at::mm(weights, values.to(at::kFloat));
}

// queries (n, d), keys and values (T, d), bias (T) or undefined. visible (n) int64 on the device, or undefined: query i
// sees the first visible[i] entries.
PartialAttention attend(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                        const at::Tensor& bias, const at::Tensor& visible) {
  at::Tensor logits = logits_of(queries, keys, bias);
  if (visible.defined()) {
    const at::Tensor index = at::arange(keys.size(0), visible.options());
    logits.masked_fill_(index.unsqueeze(0).ge(visible.unsqueeze(1)), kNothing);
  }
  const at::Tensor log_sum_exp = at::logsumexp(logits, 1);
  const at::Tensor shift = log_sum_exp.masked_fill(log_sum_exp.eq(kNothing), 0.0);
  const at::Tensor weights = logits.sub_(shift.unsqueeze(1)).exp_();
  return {weighted_sum(weights, values), log_sum_exp};
}

// As attend() with queries (n, g, d), a block of tokens at a time, written into out's output (n, g, d), log_sum_exp (n,
// g).
void attend_blocks(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& bias,
                   int64_t first_visible, const PartialAttention& out) {
  const int64_t n = queries.size(0), group = queries.size(1), d = queries.size(2), n_keys = keys.size(0);
  if (n_keys == 0) return;
  const int64_t step = std::max<int64_t>(1, kMaxLogits / (group * n_keys));
  for (int64_t begin = 0; begin < n; begin += step) {
    const int64_t end = std::min(n, begin + step);
    at::Tensor visible;
    int64_t seen = n_keys;
    if (first_visible > 0) {
      const at::TensorOptions options = at::TensorOptions().dtype(at::kLong).device(queries.device());
      visible = at::arange(first_visible + begin, first_visible + end, options).repeat_interleave(group);
      seen = std::min(n_keys, first_visible + end - 1);
    }
    const PartialAttention part =
        attend(queries.slice(0, begin, end).reshape({(end - begin) * group, d}), keys.slice(0, 0, seen),
               values.slice(0, 0, seen), bias.defined() ? bias.slice(0, 0, seen) : bias, visible);
    out.output.slice(0, begin, end).copy_(part.output.view({end - begin, group, d}));
    out.log_sum_exp.slice(0, begin, end).copy_(part.log_sum_exp.view({end - begin, group}));
  }
}

PartialAttention nothing_seen(const at::Tensor& queries) {
  const at::TensorOptions options = queries.options().dtype(at::kFloat);
  return {at::zeros(queries.sizes(), options), at::full({queries.size(0), queries.size(1)}, kNothing, options)};
}

// Query heads of one KV head, of the tokens [begin, end).
at::Tensor group_of(const at::Tensor& heads, int64_t kv_head, int64_t group, int64_t begin, int64_t end) {
  return heads.slice(0, begin, end).slice(1, kv_head * group, (kv_head + 1) * group);
}

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

void tail_on_cpu(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                 const std::vector<int64_t>& lengths, const std::vector<int64_t>& sequence_offsets,
                 const PartialAttention& out) {
  const int64_t n_kv_heads = keys.size(1), capacity = keys.size(2);
  CpuTasks tasks(queries, out, n_kv_heads);
  for (size_t b = 0; b < lengths.size(); ++b) {
    const int64_t begin = sequence_offsets[b], end = sequence_offsets[b + 1];
    for (int64_t h = 0; begin < end && h < n_kv_heads; ++h) {
      tasks.add(h, begin, end, keys, values, (static_cast<int64_t>(b) * n_kv_heads + h) * capacity, nullptr,
                lengths[b] + end - begin, lengths[b] + 1);
    }
  }
  tasks.run();
}

// --- plain ATen ---

void prefix_by_products(const at::Tensor& queries, const LayerKv& prefix, const PartialAttention& out) {
  const int64_t n = queries.size(0), n_kv_heads = prefix.n_kv_heads(), group = queries.size(1) / n_kv_heads;
  for (int64_t h = 0; h < n_kv_heads; ++h) {
    attend_blocks(group_of(queries, h, group, 0, n), prefix.head_keys(h), prefix.head_values(h), prefix.head_bias(h), 0,
                  {group_of(out.output, h, group, 0, n), group_of(out.log_sum_exp, h, group, 0, n)});
  }
}

void tail_by_products(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                      const std::vector<int64_t>& lengths, const std::vector<int64_t>& sequence_offsets,
                      const PartialAttention& out) {
  const int64_t n_kv_heads = keys.size(1), group = queries.size(1) / n_kv_heads;
  for (size_t b = 0; b < lengths.size(); ++b) {
    const int64_t begin = sequence_offsets[b], end = sequence_offsets[b + 1], seen = lengths[b] + end - begin;
    if (begin == end) continue;
    const int64_t row = static_cast<int64_t>(b);
    for (int64_t h = 0; h < n_kv_heads; ++h) {
      attend_blocks(group_of(queries, h, group, begin, end), keys[row][h].slice(0, 0, seen),
                    values[row][h].slice(0, 0, seen), {}, lengths[b] + 1,
                    {group_of(out.output, h, group, begin, end), group_of(out.log_sum_exp, h, group, begin, end)});
    }
  }
}

// --- a GPU: runs of sequences with few new tokens by kernels, each of the others by products ---

at::Tensor context_on_gpu(const at::Tensor& queries, const LayerKv& prefix, const at::Tensor& keys,
                          const at::Tensor& values, const std::vector<int64_t>& lengths,
                          const std::vector<int64_t>& offsets) {
  using Numbers = std::vector<int64_t>;
  const auto by_kernels = [&](const at::Tensor& own, const at::Tensor& own_keys, const at::Tensor& own_values,
                              const Numbers& own_lengths, const Numbers& own_offsets) {
    return gpu::context_attention(own, prefix, own_keys, own_values, own_lengths, own_offsets);
  };
  const auto by_products = [&](const at::Tensor& own, const at::Tensor& own_keys, const at::Tensor& own_values,
                               const Numbers& own_lengths, const Numbers& own_offsets) {
    PartialAttention attention = nothing_seen(own);
    tail_by_products(own, own_keys, own_values, own_lengths, own_offsets, attention);
    if (prefix.n_entries() > 0) {
      const PartialAttention before = nothing_seen(own);
      prefix_by_products(own, prefix, before);
      attention = merge(before, attention);
    }
    return attention.output;
  };
  return attend_in_runs(queries, keys, values, lengths, offsets, kProductRows, by_kernels, by_products);
}

}  // namespace

PartialAttention prefix_attention(const at::Tensor& queries, const LayerKv& prefix) {
  const PartialAttention out = nothing_seen(queries);
  if (has_own_kernel(queries, prefix.keys, prefix.values)) {
    prefix_on_cpu(queries, prefix, out);
    return out;
  }
  if (gpu::takes(queries, prefix.keys, prefix.values, prefix.n_kv_heads())) {
    return gpu::prefix_attention(queries, prefix);
  }
  prefix_by_products(queries, prefix, out);
  return out;
}

PartialAttention tail_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                const std::vector<int64_t>& lengths, const std::vector<int64_t>& sequence_offsets) {
  const PartialAttention out = nothing_seen(queries);
  if (has_own_kernel(queries, keys, values)) {
    tail_on_cpu(queries, keys, values, lengths, sequence_offsets, out);
    return out;
  }
  if (gpu::takes(queries, keys, values, keys.size(1))) {
    return gpu::tail_attention(queries, keys, values, lengths, sequence_offsets);
  }
  tail_by_products(queries, keys, values, lengths, sequence_offsets, out);
  return out;
}

at::Tensor context_attention(const at::Tensor& queries, const LayerKv& prefix, const at::Tensor& keys,
                             const at::Tensor& values, const std::vector<int64_t>& lengths,
                             const std::vector<int64_t>& sequence_offsets) {
  if (gpu::takes(queries, keys, values, keys.size(1)) &&
      gpu::takes(queries, prefix.keys, prefix.values, prefix.n_kv_heads())) {
    return context_on_gpu(queries, prefix, keys, values, lengths, sequence_offsets);
  }
  PartialAttention attention = tail_attention(queries, keys, values, lengths, sequence_offsets);
  if (prefix.n_entries() > 0) attention = merge(prefix_attention(queries, prefix), attention);
  return attention.output.to(queries.scalar_type());
}

}  // namespace kvc
