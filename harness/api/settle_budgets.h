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

// The request's budgets over layers [first_layer, first_layer + n_layers). Only where a budget is adaptive problem_of
// is asked once a head, and scores_of for the scores of each: on the CPU for one head at a time by several threads, on
// a GPU for the heads of a layer. Throws what check_scores() throws.
SettledBudgets settle_budgets(const CompactionRequest& request, int64_t first_layer, int64_t n_layers,
                              const std::function<HeadProblem(int64_t layer, int64_t kv_head)>& problem_of,
                              const std::function<std::vector<at::Tensor>(const std::vector<HeadProblem>&)>& scores_of);

}  // namespace kvc
