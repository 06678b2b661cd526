#include "harness/math/product_statistics.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/core/error.h"
#include "harness/math/float_product.h"

namespace kvc {
namespace {

constexpr int64_t kFewestQueries = 16;

// The part of a per-row tensor that belongs to some queries, (1,rows,1) where the logits are.
at::Tensor queries_of(const at::Tensor& list, int64_t first, int64_t rows, const at::Tensor& like) {
  return list.narrow(0, first, rows).to(like.device()).view({1, rows, 1});
}

// Minus infinity where the queries from `first` on do not see an entry.
void hide_unseen(at::Tensor& logits, const at::Tensor& n_visible, int64_t first) {
  const at::Tensor visible = queries_of(n_visible, first, logits.size(1), logits);
  const at::Tensor entry = at::arange(logits.size(2), visible.options());
  logits.masked_fill_(entry >= visible, -std::numeric_limits<float>::infinity());
}

// A V in float32; on tensor cores the weights are rounded as the values are.
at::Tensor weighted_values(const at::Tensor& weights, const at::Tensor& values) {
  const bool on_tensor_cores = values.is_cuda() && values.scalar_type() == at::kBFloat16;
  return float_product(on_tensor_cores ? weights.to(at::kBFloat16) : weights, values);
}

// SoftmaxedBlock and row sums from logits and their row maxima.
struct SoftmaxedBlock {
  at::Tensor weights, row_sum;
};
SoftmaxedBlock softmax_of(at::Tensor& logits, const at::Tensor& row_max, bool some_see_nothing, at::Tensor& spare) {
  if (!some_see_nothing) {
    // One pass in place of four. The largest weight of a row is 1 / row_sum.
    at::_softmax_out(spare, logits, 2, /*half_to_float=*/false);
    return {spare, spare.amax(2, /*keepdim=*/true).reciprocal_()};
  }
  logits.sub_(row_max).exp_();
  const at::Tensor row_sum = logits.sum(2, /*keepdim=*/true);
  logits.div_(at::where(row_sum.eq(0), at::ones_like(row_sum), row_sum));
  return {logits, row_sum};
}

void apply_reach(at::Tensor& weights, const RowReach& reach, int64_t first, const at::Tensor& row_max,
                 const at::Tensor& row_sum) {
  const int64_t rows = weights.size(1);
  if (reach.elsewhere.defined()) {
    const at::Tensor elsewhere = queries_of(reach.elsewhere, first, rows, weights);
    const at::Tensor share = at::sigmoid(row_max + row_sum.log() - elsewhere);
    weights.mul_(at::where(row_sum.eq(0), at::zeros_like(row_sum), share));
  }
  if (reach.weight.defined()) weights.mul_(queries_of(reach.weight, first, rows, weights));
}

void add_to_keys(at::Tensor& per_key, const at::Tensor& weights, KeySum sum) {
  if (sum == KeySum::kLargest) {
    at::maximum_out(per_key, per_key, weights.amax(1));
  } else {
    per_key.add_(sum == KeySum::kSquares ? at::linalg_vector_norm(weights, 2, 1).square_() : weights.sum(1));
  }
}

}  // namespace

void logits_into(at::Tensor& out, const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(queries.size(2))), beta = bias.defined() ? 1 : 0;
  if (bias.defined()) out.copy_(bias.unsqueeze(1).expand_as(out));
  if (queries.is_cuda() && queries.scalar_type() == at::kBFloat16 && keys.scalar_type() == at::kBFloat16) {
    at::baddbmm_out(out, out, queries, keys.transpose(1, 2), at::kFloat, beta, scale);
    return;
  }
  if (!bias.defined()) out.zero_();  // products on the CPU may read what they are told to forget
  at::baddbmm_out(out, out, queries.to(at::kFloat), keys.to(at::kFloat).transpose(1, 2), beta, scale);
}

AttentionStatistics statistics_by_products(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                           const at::Tensor& values, KeySum sum, const RowReach& reach, int64_t bytes) {
  const int64_t heads = queries.size(0), n = queries.size(1), t = keys.size(1);
  const bool reaches = reach.n_visible.defined() || reach.elsewhere.defined() || reach.weight.defined();
  if (reaches && heads != 1) {
    throw Error(ErrorKind::kInternal, "a reach of several heads at once", "attention statistics", "");
  }
  const at::TensorOptions options = queries.options().dtype(at::kFloat);
  AttentionStatistics result;
  result.row_max = at::empty({heads, n, 1}, options);
  result.row_sum = at::empty({heads, n, 1}, options);
  if (sum != KeySum::kNone) result.per_key = at::zeros({heads, t}, options);
  if (values.defined()) result.output = at::empty({heads, n, values.size(2)}, options);
  const int64_t row_bytes = std::max<int64_t>(1, 4 * heads * t);
  const int64_t most = std::clamp(bytes / row_bytes, std::min(kFewestQueries, n), std::max<int64_t>(n, 1));
  const at::Tensor memory = at::empty({2, heads * std::min(most, n) * t}, options);
  for (int64_t first = 0; first < n; first += most) {
    const int64_t rows = std::min(most, n - first);
    const auto block = [&](int64_t which) {
      return memory[which].narrow(0, 0, heads * rows * t).view({heads, rows, t});
    };
    at::Tensor logits = block(0), spare = block(1);
    logits_into(logits, queries.narrow(1, first, rows), keys, bias);
    if (reach.n_visible.defined()) hide_unseen(logits, reach.n_visible, first);
    at::Tensor row_max = logits.amax(2, /*keepdim=*/true);
    if (reach.n_visible.defined()) row_max = row_max.clamp_min(std::numeric_limits<float>::lowest());
    SoftmaxedBlock made = softmax_of(logits, row_max, reach.n_visible.defined(), spare);
    result.row_max.narrow(1, first, rows).copy_(row_max);
    result.row_sum.narrow(1, first, rows).copy_(made.row_sum);
    if (values.defined()) result.output.narrow(1, first, rows).copy_(weighted_values(made.weights, values));
    if (sum == KeySum::kNone) continue;
    apply_reach(made.weights, reach, first, row_max, made.row_sum);
    add_to_keys(result.per_key, made.weights, sum);
  }
  return result;
}

}  // namespace kvc
