// From tensors to the launchers of tensor_attention_cuda.h: on the current GPU, or, for the kernels as tests emulate
// them, on the CPU. Arguments and results as in device_statistics.h.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "harness/attention/cuda_attention_glue.h"
#include "harness/attention/tensor_attention_cuda.h"
#include "harness/math/attention_statistics.h"

namespace kvc::KVC_CUDA_NAMESPACE {

inline bool statistics_take(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
  const int64_t d = queries.size(2);
  const auto fits = [&](const at::Tensor& tensor) {
    return tensor.scalar_type() == at::kBFloat16 && tensor.device() == queries.device() && tensor.size(2) == d;
  };
  return fits(queries) && fits(keys) && (!values.defined() || fits(values)) && d % 8 == 0 && d >= 8 &&
         d <= kMaxHeadDim && queries.size(1) > 0 && keys.size(1) > 0;
}

inline ColumnSum column_sum(KeySum sum) {
  if (sum == KeySum::kSquares) return ColumnSum::kSquares;
  return sum == KeySum::kLargest ? ColumnSum::kLargest : ColumnSum::kPlain;
}

// A reach's list (n), or (H,n), where the kernels read it; undefined stays so.
inline at::Tensor list_of_heads(const at::Tensor& list, const at::Tensor& queries) {
  if (!list.defined()) return list;
  return list.to(queries.device()).expand({queries.size(0), queries.size(1)}).contiguous();
}

// attend_rows() of every head over its own entries: a KV head with as many query heads as it has queries, and one
// token.
inline void attend_heads(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                         const at::Tensor& values, const at::Tensor& n_visible, const at::Tensor& log_sum_exp,
                         const AttentionStatistics& results, CudaStream stream) {
  const int64_t heads = queries.size(0), n = queries.size(1), t = keys.size(1), d = keys.size(2);
  for (int64_t first = 0; first < heads; first += kMaxKvHeads) {
    const int64_t some = std::min<int64_t>(kMaxKvHeads, heads - first);
    const auto own = [&](const at::Tensor& all) { return all.narrow(0, first, some); };
    const AttentionShape shape{Number::kBfloat16, 1, static_cast<int>(d), static_cast<int>(some * n),
                               static_cast<int>(some)};
    ContextPart part;
    part.keys = own(keys).const_data_ptr();
    part.values = values.defined() ? own(values).const_data_ptr() : nullptr;
    part.bias = bias.defined() ? own(bias).const_data_ptr<float>() : nullptr;
    for (int64_t h = 0; h <= some; ++h) part.head_offsets[h] = h * t;
    part.most_tokens = 1;
    part.most_entries = t;
    const RowResults out{values.defined() ? own(results.output).mutable_data_ptr<float>() : nullptr,
                         own(log_sum_exp).mutable_data_ptr<float>(), own(results.row_max).mutable_data_ptr<float>(),
                         own(results.row_sum).mutable_data_ptr<float>()};
    demand(attend_rows(shape, part, own(queries).const_data_ptr(), 1,
                       n_visible.defined() ? own(n_visible).const_data_ptr<int64_t>() : nullptr, out, stream),
           "statistics kernel");
    ++column_launches().launches;
    const int64_t sides = values.defined() ? 2 : 1;
    column_launches().bytes +=
        some * (2 * d * (n + sides * t) + 4 * n * (3 + (sides - 1) * d) + (bias.defined() ? 4 * t : 0));
  }
}

inline std::optional<AttentionStatistics> statistics(const at::Tensor& all_queries, const at::Tensor& all_keys,
                                                     const at::Tensor& all_bias, const at::Tensor& all_values,
                                                     KeySum sum, const RowReach& reach, CudaStream stream) {
  if (!statistics_take(all_queries, all_keys, all_values)) return std::nullopt;
  const auto dense = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.contiguous() : tensor; };
  const at::Tensor queries = dense(all_queries), keys = dense(all_keys), values = dense(all_values),
                   bias = dense(all_bias);
  const int64_t heads = queries.size(0), n = queries.size(1), t = keys.size(1), d = keys.size(2);
  const at::TensorOptions options = queries.options().dtype(at::kFloat);
  AttentionStatistics results;
  results.row_max = at::empty({heads, n, 1}, options);
  results.row_sum = at::empty({heads, n, 1}, options);
  if (values.defined()) results.output = at::empty({heads, n, d}, options);
  const at::Tensor log_sum_exp = at::empty({heads, n}, options), n_visible = list_of_heads(reach.n_visible, queries);
  attend_heads(queries, keys, bias, values, n_visible, log_sum_exp, results, stream);
  results.row_max.clamp_min_(std::numeric_limits<float>::lowest());
  if (sum == KeySum::kNone) return results;

  results.per_key = at::empty({heads, t}, options);
  at::Tensor shift = log_sum_exp;
  if (reach.elsewhere.defined()) shift = at::logaddexp(shift, list_of_heads(reach.elsewhere, queries));
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  shift =
      shift.masked_fill(shift.eq(-kInfinity), kInfinity);  // rows that see nothing leave nothing, whatever they weigh
  if (reach.weight.defined()) shift = shift - list_of_heads(reach.weight, queries).log();
  const ColumnShape shape{heads, n, t, static_cast<int>(d)};
  demand(sum_columns(shape, column_sum(sum), queries.const_data_ptr(), keys.const_data_ptr(),
                     bias.defined() ? bias.const_data_ptr<float>() : nullptr, shift.const_data_ptr<float>(),
                     n_visible.defined() ? n_visible.const_data_ptr<int64_t>() : nullptr,
                     results.per_key.mutable_data_ptr<float>(), stream),
         "statistics kernel");
  return results;
}

}  // namespace kvc::KVC_CUDA_NAMESPACE
