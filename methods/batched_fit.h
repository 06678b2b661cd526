// OrderedFit of many heads at once, for GPUs.
//
// Letters: H heads, T entries, n queries; t_h kept entries of head h, t the largest of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "methods/parts/fit.h"
#include "methods/parts/head_batches.h"

namespace kvc {

// Bytes of a head in a batch beside 1 GiB for all of them.
int64_t fit_bytes(const HeadProblem& problem, int64_t target_len);

// The first t_h keys of each row of `order` (H, at least t) int64, as OrderedFit::fit() would fit them: the same
// numbers within rounding, for sums run over more heads. `summary` is that of summarize_heads(). log_weights (H, at
// least t) float32, where given, are ln w as there. nullopt for heads that have to be fitted alone: t_h of 0 or more
// than n, columns that depend on each other, kept entries with next to no mass, numbers that are not finite. The host
// waits once, for what it has to know of every head at the end.
std::vector<std::optional<HeadFit>> fit_batch(const HeadBatch& batch, const AttentionSummary& summary,
                                              const at::Tensor& order, std::vector<int64_t> lengths,
                                              const FitSettings& settings, const at::Tensor& log_weights = {});

}  // namespace kvc
