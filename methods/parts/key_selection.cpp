#include "methods/parts/key_selection.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/core/error.h"
#include "harness/math/attention.h"
#include "harness/math/attention_statistics.h"
#include "harness/math/float_product.h"

namespace kvc {
namespace {

constexpr int64_t kBlockLogits = int64_t{1} << 27;  // at a time: 512 MiB, twice or thrice

// Minus infinity where the queries from `first` on do not see an entry.
void hide_unseen(at::Tensor& logits, const RowReach& reach, int64_t first) {
  if (!reach.n_visible.defined()) return;
  const at::Tensor visible = reach.n_visible.narrow(0, first, logits.size(0)).to(logits.device()).unsqueeze(1);
  const at::Tensor entry = at::arange(logits.size(1), visible.options());
  logits.masked_fill_(entry >= visible, -std::numeric_limits<float>::infinity());
}

// A V in float32; on tensor cores the weights are rounded as the values are.
at::Tensor weighted_values(const at::Tensor& weights, const at::Tensor& values) {
  const bool on_tensor_cores = values.is_cuda() && values.scalar_type() == at::kBFloat16;
  return float_product(on_tensor_cores ? weights.to(at::kBFloat16) : weights, values);
}

// From a sum over n queries to the score.
void finish(at::Tensor& scores, KeyScore score, int64_t n) {
  if (score != KeyScore::kMax && n > 0) scores.div_(static_cast<double>(n));
  if (score == KeyScore::kRms) scores.sqrt_();
}

}  // namespace

const std::vector<std::string>& key_score_names() {
  static const std::vector<std::string> names = {"rms", "max", "mean"};
  return names;
}

KeyScore key_score_from(const std::string& name) {
  if (name == "rms") return KeyScore::kRms;
  if (name == "max") return KeyScore::kMax;
  if (name == "mean") return KeyScore::kMean;
  throw Error(ErrorKind::kUsage, "unknown score '" + name + "'", "", suggest_name(name, key_score_names()));
}

AttentionSummary summarize_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                     KeyScore score, const at::Tensor& values, const RowReach& reach,
                                     bool by_products) {
  const int64_t n = queries.size(0);
  const at::TensorOptions options = queries.options().dtype(at::kFloat);
  AttentionSummary summary;
  if (keys.is_cpu() && !by_products) {
    const AttentionStatistics made = attention_statistics(
        queries.to(at::kFloat).mul(1.0 / std::sqrt(static_cast<double>(queries.size(1)))), keys.to(at::kFloat),
        bias.defined() ? bias.to(at::kFloat) : bias, values.defined() ? values.to(at::kFloat) : values,
        score == KeyScore::kRms    ? KeySum::kSquares
        : score == KeyScore::kMean ? KeySum::kPlain
                                   : KeySum::kLargest,
        reach);
    summary = {made.per_key, made.row_max, made.row_sum, made.output};
    finish(summary.scores, score, n);
    return summary;
  }
  summary.scores = at::zeros({keys.size(0)}, options);
  summary.row_max = at::empty({n, 1}, options);
  summary.row_sum = at::empty({n, 1}, options);
  if (values.defined()) summary.output = at::empty({n, values.size(1)}, options);
  const int64_t most = std::max<int64_t>(256, kBlockLogits / std::max<int64_t>(1, keys.size(0)));
  for (int64_t first = 0; first < n; first += most) {
    const int64_t n_here = std::min(most, n - first);
    at::Tensor weights = attention_logits(queries.narrow(0, first, n_here), keys, bias);
    hide_unseen(weights, reach, first);
    at::Tensor row_max = weights.amax(1, /*keepdim=*/true);
    if (reach.n_visible.defined()) row_max = row_max.clamp_min(std::numeric_limits<float>::lowest());
    weights.sub_(row_max).exp_();
    const at::Tensor row_sum = weights.sum(1, /*keepdim=*/true);
    weights.div_(reach.n_visible.defined() ? at::where(row_sum.eq(0), at::ones_like(row_sum), row_sum) : row_sum);
    summary.row_max.narrow(0, first, n_here).copy_(row_max);
    summary.row_sum.narrow(0, first, n_here).copy_(row_sum);
    if (values.defined()) summary.output.narrow(0, first, n_here).copy_(weighted_values(weights, values));
    if (reach.elsewhere.defined()) {
      const at::Tensor log_mass = row_max + row_sum.log();
      const at::Tensor elsewhere = reach.elsewhere.narrow(0, first, n_here).to(log_mass.device()).unsqueeze(1);
      weights.mul_(at::where(row_sum.eq(0), at::zeros_like(row_sum), at::sigmoid(log_mass - elsewhere)));
    }
    if (reach.weight.defined()) {
      weights.mul_(reach.weight.narrow(0, first, n_here).to(weights.device()).unsqueeze(1));
    }
    if (score == KeyScore::kMax) {
      summary.scores = at::maximum(summary.scores, weights.amax(0));
    } else {
      summary.scores.add_(score == KeyScore::kRms ? at::linalg_vector_norm(weights, 2, 0).square_() : weights.sum(0));
    }
  }
  finish(summary.scores, score, n);
  return summary;
}

at::Tensor best_keys(const at::Tensor& scores, int64_t k) {
  return std::get<1>(at::sort(scores, /*stable=*/true, /*dim=*/0, /*descending=*/true)).narrow(0, 0, k);
}

}  // namespace kvc
