// What compact() is given and what a method gives back, checked: a method that breaks its contract is named, with layer
// and head.
#pragma once

#include <cstdint>

#include "harness/api/compaction_method.h"

namespace kvc {

// Every budget has the cache's layers and heads, every target lies in [0, source length]. Throws Error(kInternal).
void check_budgets(const CompactionRequest& request);
// Shapes, dtypes, distinct indices in range, finite numbers. Throws Error(kInternal).
void check_fit(const HeadFit& fit, const HeadProblem& problem, int64_t target_len);
// (T) float32. Throws Error(kUsage) when the method has no scores, Error(kInternal) for another shape or dtype.
void check_scores(const at::Tensor& scores, const HeadProblem& problem);

}  // namespace kvc
