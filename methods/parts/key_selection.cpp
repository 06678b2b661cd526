#include "methods/parts/key_selection.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "harness/attention/device_statistics.h"
#include "harness/core/error.h"
#include "harness/math/attention_statistics.h"
#include "harness/math/product_statistics.h"

namespace kvc {
namespace {

KeySum sum_for(std::optional<KeyScore> score) {
  if (!score) return KeySum::kNone;
  if (score == KeyScore::kMax) return KeySum::kLargest;
  return score == KeyScore::kRms ? KeySum::kSquares : KeySum::kPlain;
}

// From sums over n queries to scores.
AttentionSummary summary_of(AttentionStatistics made, std::optional<KeyScore> score, int64_t n) {
  if (score && score != KeyScore::kMax && n > 0) made.per_key.div_(static_cast<double>(n));
  if (score == KeyScore::kRms) made.per_key.sqrt_();
  return {made.per_key, made.row_max, made.row_sum, made.output};
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
  if (keys.is_cpu() && !by_products) {
    return summary_of(
        attention_statistics(queries.to(at::kFloat).mul(1.0 / std::sqrt(static_cast<double>(queries.size(1)))),
                             keys.to(at::kFloat), bias.defined() ? bias.to(at::kFloat) : bias,
                             values.defined() ? values.to(at::kFloat) : values, sum_for(score), reach),
        score, queries.size(0));
  }
  const auto one = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.unsqueeze(0) : tensor; };
  const AttentionSummary made = summarize_heads(one(queries), one(keys), one(bias), score, one(values), reach);
  return {made.scores[0], made.row_max[0], made.row_sum[0], values.defined() ? made.output[0] : at::Tensor()};
}

namespace {

// Products take the reach of one head only.
AttentionSummary head_by_head(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                              std::optional<KeyScore> score, const at::Tensor& values, const RowReach& reach) {
  std::vector<at::Tensor> scores, row_max, row_sum, output;
  const auto own = [](const at::Tensor& all, int64_t h) { return all.defined() ? all.narrow(0, h, 1) : all; };
  const auto row = [](const at::Tensor& all, int64_t h) { return all.defined() ? all[h] : all; };
  const auto joined = [](const std::vector<at::Tensor>& parts) {
    return parts.front().defined() ? at::cat(parts) : at::Tensor();
  };
  for (int64_t h = 0; h < queries.size(0); ++h) {
    const AttentionSummary one =
        summarize_heads(own(queries, h), own(keys, h), own(bias, h), score, own(values, h),
                        {row(reach.n_visible, h), row(reach.elsewhere, h), row(reach.weight, h)});
    scores.push_back(one.scores);
    row_max.push_back(one.row_max);
    row_sum.push_back(one.row_sum);
    output.push_back(one.output);
  }
  return {joined(scores), joined(row_max), joined(row_sum), joined(output)};
}

}  // namespace

AttentionSummary summarize_heads(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                 std::optional<KeyScore> score, const at::Tensor& values, const RowReach& reach) {
  const KeySum sum = sum_for(score);
  std::optional<AttentionStatistics> made = gpu::attention_statistics(queries, keys, bias, values, sum, reach);
  const auto of_heads = [](const at::Tensor& list) { return list.defined() && list.dim() == 2; };
  if (!made && (of_heads(reach.n_visible) || of_heads(reach.elsewhere) || of_heads(reach.weight)))
    return head_by_head(queries, keys, bias, score, values, reach);
  if (!made) made = statistics_by_products(queries, keys, bias, values, sum, reach);
  return summary_of(std::move(*made), score, queries.size(1));
}

at::Tensor best_keys(const at::Tensor& scores, int64_t k) {
  return std::get<1>(at::sort(scores, /*stable=*/true, /*dim=*/0, /*descending=*/true)).narrow(0, 0, k);
}

}  // namespace kvc
