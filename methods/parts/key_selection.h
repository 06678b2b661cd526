// Which keys to keep: scores from attention weights, pooling over positions, and the best of them in a fixed order.
//
// Letters: T entries, n queries; A (n,T) attention weights, every row sums to 1.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace kvc {

enum class KeyScore : std::uint8_t { kRms, kMax, kMean };

// "rms", "max", "mean".
const std::vector<std::string>& key_score_names();
// Throws Error(kUsage) for another name.
KeyScore key_score_from(const std::string& name);

// Attention of queries over the entries of one head, kept as what the fits need of it.
struct AttentionTable {
  at::Tensor exp_logits;  // E (n,T) float32 = exp(S - row_max)
  at::Tensor row_max;     // (n,1) float32, max over all T of the logits S, old bias included
  at::Tensor row_sum;     // (n,1) float32, sum_j E_ij in [1, T]: the attention mass in units of exp(row_max)
};

// queries (n,d), keys (T,d) model dtype; bias (T) float32 or undefined. No causal mask: every query sees every entry (spec A.1).
// 4 n T bytes.
AttentionTable attend(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias);

// (T) float32: sqrt(mean_i A_ij^2), max_i A_ij or mean_i A_ij (spec B.1).
at::Tensor key_scores(const AttentionTable& table, KeyScore kind);

// The k largest in descending order, the lower index first among equals. (k) int64.
at::Tensor best_keys(const at::Tensor& scores, int64_t k);

}  // namespace kvc
