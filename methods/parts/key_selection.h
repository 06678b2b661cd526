// Which keys to keep: scores from attention weights, and the best of them in a fixed order.
//
// Letters: T entries, n queries; S (n,T) logits, m_i = max_j S_ij, A = softmax(S) (n,T) attention weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/math/attention_statistics.h"

namespace kvc {

enum class KeyScore : std::uint8_t { kRms, kMax, kMean };

// "rms", "max", "mean".
const std::vector<std::string>& key_score_names();
// Throws Error(kUsage) for another name.
KeyScore key_score_from(const std::string& name);

// Attention of queries over the entries of one head, reduced to what selection and fits need of it.
struct AttentionSummary {
  at::Tensor scores;   // (T) float32: sqrt(mean_i A_ij^2), max_i A_ij or mean_i A_ij
  at::Tensor row_max;  // (n,1) float32: m, old bias included
  at::Tensor row_sum;  // (n,1) float32: sum_j exp(S_ij - m_i) in [1, T], the attention mass in units of exp(m)
  at::Tensor output;   // (n,d) float32: A V; undefined when no values were given
};

// queries (n,d), keys (T,d) model dtype; bias (T) float32 or undefined; values (T,d) model dtype or undefined. Without
// a reach every query sees every entry and nothing else (as in arXiv:2602.16284); with one, A and the scores are shares
// of all that a query sees (RowReach), row_max, row_sum and the output of the visible entries alone. Cost 2 n T d
// flops, 4 n T d with values, twice the logits' on tensor cores; works on some queries at a time, so that the (n,T)
// matrix never exists: on the CPU in registers, on a GPU, and by_products on the CPU too, as summarize_heads().
AttentionSummary summarize_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                     KeyScore score, const at::Tensor& values = {}, const RowReach& reach = {},
                                     bool by_products = false);

// The same of many heads at once on any device: in bfloat16 by this project's kernels on a GPU's tensor cores, else by
// matrix products. Every tensor has the heads as a leading dimension (scores (H,T), row_max and row_sum (H,n,1), output
// (H,n,d)); so have the lists of a reach, (H,n), or for H = 1 also (n). Without a score there are none, for callers
// that know them: a third of the products less, half where there are no values.
AttentionSummary summarize_heads(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                 std::optional<KeyScore> score, const at::Tensor& values = {},
                                 const RowReach& reach = {});

// The k largest in descending order, the lower index first among equals. (k) int64.
at::Tensor best_keys(const at::Tensor& scores, int64_t k);

}  // namespace kvc
