#include "methods/parts/key_selection.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "harness/core/error.h"
#include "harness/math/attention.h"

namespace kvc {

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

AttentionTable attend(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias) {
  AttentionTable table;
  table.exp_logits = attention_logits(queries, keys, bias);
  table.row_max = table.exp_logits.amax(1, /*keepdim=*/true);
  table.exp_logits.sub_(table.row_max).exp_();
  table.row_sum = table.exp_logits.sum(1, /*keepdim=*/true);
  return table;
}

at::Tensor key_scores(const AttentionTable& table, KeyScore kind) {
  constexpr int64_t kRows = 256;  // weights are made a few rows at a time: a second (n,T) matrix would double the memory
  const int64_t n = table.exp_logits.size(0);
  at::Tensor scores = at::zeros({table.exp_logits.size(1)}, table.exp_logits.options());
  for (int64_t first = 0; first < n; first += kRows) {
    const int64_t n_rows = std::min(kRows, n - first);
    at::Tensor weights = table.exp_logits.narrow(0, first, n_rows) / table.row_sum.narrow(0, first, n_rows);
    if (kind == KeyScore::kMax) {
      scores = at::maximum(scores, weights.amax(0));
    } else {
      if (kind == KeyScore::kRms) weights.square_();
      scores.add_(weights.sum(0));
    }
  }
  if (kind != KeyScore::kMax && n > 0) scores.div_(static_cast<double>(n));
  return kind == KeyScore::kRms ? scores.sqrt_() : scores;
}

at::Tensor best_keys(const at::Tensor& scores, int64_t k) {
  return std::get<1>(at::sort(scores, /*stable=*/true, /*dim=*/0, /*descending=*/true)).narrow(0, 0, k);
}

}  // namespace kvc
