#include "harness/testing/naive_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace kvc {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

at::Tensor as_double(const at::Tensor& tensor) {
  return tensor.to(at::kDouble).contiguous();
}

// One query (d doubles) over its first n_seen entries: writes d outputs, returns log-sum-exp.
double attend_one(const double* query, const double* keys, const double* values, const double* bias, int64_t n_seen,
                  int64_t d, double* output) {
  std::vector<double> logits(static_cast<size_t>(n_seen));
  double largest = kNothing;
  for (int64_t j = 0; j < n_seen; ++j) {
    double dot = 0;
    for (int64_t c = 0; c < d; ++c) dot += query[c] * keys[j * d + c];
    logits[j] = dot / std::sqrt(static_cast<double>(d)) + (bias != nullptr ? bias[j] : 0.0);
    largest = std::max(largest, logits[j]);
  }
  std::fill(output, output + d, 0.0);
  if (largest == kNothing) return kNothing;
  double total = 0;
  for (const double logit : logits) total += std::exp(logit - largest);
  for (int64_t j = 0; j < n_seen; ++j) {
    const double weight = std::exp(logits[j] - largest) / total;
    for (int64_t c = 0; c < d; ++c) output[c] += weight * values[j * d + c];
  }
  return largest + std::log(total);
}

PartialAttention empty_result(const at::Tensor& queries) {
  return {at::zeros(queries.sizes(), at::kDouble), at::full({queries.size(0), queries.size(1)}, kNothing, at::kDouble)};
}

void store(const PartialAttention& from, const PartialAttention& to, int64_t query_head, int64_t begin, int64_t end) {
  to.output.slice(0, begin, end).select(1, query_head).copy_(from.output);
  to.log_sum_exp.slice(0, begin, end).select(1, query_head).copy_(from.log_sum_exp);
}

}  // namespace

PartialAttention naive_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                 const at::Tensor& bias, const std::vector<int64_t>& visible) {
  const int64_t n = queries.size(0), d = queries.size(1);
  const at::Tensor q = as_double(queries), k = as_double(keys), v = as_double(values);
  const at::Tensor b = bias.defined() ? as_double(bias) : at::Tensor();
  PartialAttention result{at::zeros({n, d}, at::kDouble), at::zeros({n}, at::kDouble)};
  for (int64_t i = 0; i < n; ++i) {
    result.log_sum_exp.data_ptr<double>()[i] =
        attend_one(q.data_ptr<double>() + i * d, k.data_ptr<double>(), v.data_ptr<double>(),
                   b.defined() ? b.data_ptr<double>() : nullptr, visible[static_cast<size_t>(i)], d,
                   result.output.data_ptr<double>() + i * d);
  }
  return result;
}

PartialAttention naive_prefix_attention(const at::Tensor& queries, const LayerKv& prefix) {
  PartialAttention result = empty_result(queries);
  const int64_t n = queries.size(0), group = queries.size(1) / prefix.n_kv_heads();
  for (int64_t head = 0; head < queries.size(1); ++head) {
    const int64_t kv_head = head / group;
    const std::vector<int64_t> visible(static_cast<size_t>(n), prefix.head_len(kv_head));
    store(naive_attention(queries.select(1, head), prefix.head_keys(kv_head), prefix.head_values(kv_head),
                          prefix.head_bias(kv_head), visible),
          result, head, 0, n);
  }
  return result;
}

PartialAttention naive_tail_attention(const at::Tensor& queries, const TailView& tails) {
  PartialAttention result = empty_result(queries);
  const int64_t group = queries.size(1) / tails.n_kv_heads();
  for (size_t b = 0; b < tails.lengths.size(); ++b) {
    const int64_t begin = tails.offsets[b], end = tails.offsets[b + 1];
    std::vector<int64_t> visible;
    for (int64_t i = begin; i < end; ++i) visible.push_back(tails.lengths[b] + (i - begin) + 1);
    for (int64_t head = 0; head < queries.size(1); ++head) {
      const at::Tensor head_keys = tails.keys[static_cast<int64_t>(b)][head / group];
      const at::Tensor head_values = tails.values[static_cast<int64_t>(b)][head / group];
      store(naive_attention(queries.slice(0, begin, end).select(1, head), head_keys, head_values, {}, visible), result,
            head, begin, end);
    }
  }
  return result;
}

}  // namespace kvc
