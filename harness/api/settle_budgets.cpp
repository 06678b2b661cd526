#include "harness/api/settle_budgets.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "harness/api/check_compaction.h"
#include "harness/api/head_schedule.h"

namespace kvc {
namespace {

std::vector<float> to_list(const at::Tensor& scores) {
  const at::Tensor list = scores.contiguous();
  return {list.const_data_ptr<float>(), list.const_data_ptr<float>() + list.numel()};
}

// Scores on the CPU. Those of neighbouring heads on one device come in one copy: one wait, not one a head.
std::vector<at::Tensor> on_host(const std::vector<at::Tensor>& scores) {
  std::vector<at::Tensor> lists;
  for (size_t first = 0; first < scores.size();) {
    size_t end = first;
    std::vector<int64_t> lengths;
    while (end < scores.size() && scores[end].device() == scores[first].device()) {
      lengths.push_back(scores[end++].size(0));
    }
    if (scores[first].is_cpu()) {
      lists.insert(lists.end(), scores.begin() + static_cast<int64_t>(first),
                   scores.begin() + static_cast<int64_t>(end));
    } else {
      const at::ArrayRef<at::Tensor> run(scores.data() + first, end - first);
      for (const at::Tensor& list : at::cat(run).cpu().split_with_sizes(lengths)) lists.push_back(list);
    }
    first = end;
  }
  return lists;
}

}  // namespace

SettledBudgets settle_budgets(
    const CompactionRequest& request, int64_t first_layer, int64_t n_layers,
    const std::function<HeadProblem(int64_t layer, int64_t kv_head)>& problem_of,
    const std::function<std::vector<at::Tensor>(const std::vector<HeadProblem>&)>& scores_of) {
  SettledBudgets all{request.budgets, {}};
  const auto is_adaptive = [](const HeadBudget& budget) { return budget.adaptive.has_value(); };
  if (std::none_of(all.budgets.begin(), all.budgets.end(), is_adaptive)) return all;
  const int64_t n_kv_heads = request.cache.n_kv_heads();
  all.scores.resize(static_cast<size_t>(n_layers * n_kv_heads));
  const bool on_cpu = request.cache.layer(0).keys.is_cpu();
  const int64_t at_once = on_cpu ? 1 : n_kv_heads;  // neighbouring heads
  for_each_item(n_layers * n_kv_heads / at_once, on_cpu, [&](int64_t item) {
    std::vector<HeadProblem> problems;
    for (int64_t head = item * at_once; head < (item + 1) * at_once; ++head) {
      problems.push_back(problem_of(first_layer + head / n_kv_heads, head % n_kv_heads));
    }
    const std::vector<at::Tensor> made = scores_of(problems);
    for (size_t i = 0; i < problems.size(); ++i) {
      check_scores(made.at(i), problems[i]);
      all.scores[static_cast<size_t>(item * at_once) + i] = made[i];
    }
  });
  const std::vector<at::Tensor> lists = on_host(all.scores);
  const auto scores = HeadTable<std::vector<float>>::make(n_layers, n_kv_heads, [&](int64_t layer, int64_t head) {
    return to_list(lists[static_cast<size_t>(layer * n_kv_heads + head)]);
  });
  for (HeadBudget& budget : all.budgets) {
    if (!budget.adaptive) continue;
    const auto start = HeadTable<int64_t>::make(
        n_layers, n_kv_heads, [&](int64_t layer, int64_t head) { return budget.at(first_layer + layer, head); });
    const HeadTable<int64_t> settled = adaptive_lengths(*budget.adaptive, start, scores);
    for (int64_t l = 0; l < n_layers; ++l)
      std::copy_n(settled.layer(l).begin(), n_kv_heads, budget.target_len.layer(first_layer + l).begin());
  }
  return all;
}

}  // namespace kvc
