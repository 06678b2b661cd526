// Budgets whose heads compete by score, decided before anything is fitted.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "harness/api/compaction_method.h"

namespace kvc {

struct SettledBudgets {
  std::vector<HeadBudget> budgets;
  std::vector<at::Tensor> scores;  // of each head of the layers, one layer after the other; empty: nobody asked

  at::Tensor scores_of(size_t head) const { return scores.empty() ? at::Tensor() : scores[head]; }
};

// The request's budgets over layers [first_layer, first_layer + n_layers). problem_of and scores_of are asked once a
// head, by several threads at the same time, and only where a budget is adaptive. Throws what check_scores() throws.
SettledBudgets settle_budgets(const CompactionRequest& request, int64_t first_layer, int64_t n_layers,
                              const std::function<HeadProblem(int64_t layer, int64_t kv_head)>& problem_of,
                              const std::function<at::Tensor(const HeadProblem&)>& scores_of);

}  // namespace kvc
