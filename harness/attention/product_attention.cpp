#include "harness/attention/product_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "harness/math/float_product.h"

namespace kvc {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();
constexpr int64_t kMaxLogits = int64_t{1} << 24;  // 64 MiB of logits at a time

at::Tensor weighted_sum(const at::Tensor& weights, const at::Tensor& values) {
  const bool on_tensor_cores = values.is_cuda() && values.scalar_type() == at::kBFloat16;
  return float_product(on_tensor_cores ? weights.to(at::kBFloat16) : weights, values);
}

// queries (n, d), keys and values (T, d), bias (T) or undefined. visible (n) int64 on the device, or undefined: query i
// sees the first visible[i] entries.
PartialAttention attend(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                        const at::Tensor& bias, const at::Tensor& visible) {
  at::Tensor logits = attention_logits(queries, keys, bias);
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

// Query heads of one KV head, of the tokens [begin, end).
at::Tensor group_of(const at::Tensor& heads, int64_t kv_head, int64_t group, int64_t begin, int64_t end) {
  return heads.slice(0, begin, end).slice(1, kv_head * group, (kv_head + 1) * group);
}

}  // namespace

PartialAttention nothing_seen(const at::Tensor& queries) {
  const at::TensorOptions options = queries.options().dtype(at::kFloat);
  return {at::zeros(queries.sizes(), options), at::full({queries.size(0), queries.size(1)}, kNothing, options)};
}

void prefix_by_products(const at::Tensor& queries, const LayerKv& prefix, const PartialAttention& out) {
  const int64_t n = queries.size(0), n_kv_heads = prefix.n_kv_heads(), group = queries.size(1) / n_kv_heads;
  for (int64_t h = 0; h < n_kv_heads; ++h) {
    attend_blocks(group_of(queries, h, group, 0, n), prefix.head_keys(h), prefix.head_values(h), prefix.head_bias(h), 0,
                  {group_of(out.output, h, group, 0, n), group_of(out.log_sum_exp, h, group, 0, n)});
  }
}

void tail_by_products(const at::Tensor& queries, const TailView& tails, const PartialAttention& out) {
  const int64_t n_kv_heads = tails.n_kv_heads(), group = queries.size(1) / n_kv_heads;
  for (size_t b = 0; b < tails.lengths.size(); ++b) {
    const int64_t begin = tails.offsets[b], end = tails.offsets[b + 1], seen = tails.lengths[b] + end - begin;
    if (begin == end) continue;
    const int64_t row = static_cast<int64_t>(b);
    for (int64_t h = 0; h < n_kv_heads; ++h) {
      attend_blocks(group_of(queries, h, group, begin, end), tails.keys[row][h].slice(0, 0, seen),
                    tails.values[row][h].slice(0, 0, seen), {}, tails.lengths[b] + 1,
                    {group_of(out.output, h, group, begin, end), group_of(out.log_sum_exp, h, group, begin, end)});
    }
  }
}

}  // namespace kvc
