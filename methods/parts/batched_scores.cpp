#include "methods/parts/batched_scores.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "harness/math/to_device.h"
#include "methods/parts/head_batches.h"

namespace kvc {
namespace {

// Copies of keys and queries, and a dozen numbers of float32 a query and an entry.
int64_t score_bytes(const HeadProblem& problem, int64_t /*target_len*/) {
  const int64_t numbers = problem.keys.numel() + problem.queries.numel();
  return numbers * problem.keys.element_size() + 48 * (problem.keys.size(0) + problem.queries.size(0));
}

at::Tensor stacked(const std::vector<HeadProblem>& problems, const std::vector<size_t>& members,
                   at::Tensor HeadProblem::*part) {
  std::vector<at::Tensor> list;
  for (const size_t head : members) list.push_back(problems[head].*part);
  return list.front().defined() ? at::stack(list) : at::Tensor();
}

// One list of each head where all have one: (H,n) on the device.
at::Tensor stacked(const std::vector<RowReach>& reaches, at::Tensor RowReach::*list, const at::Device& device) {
  std::vector<at::Tensor> rows;
  for (const RowReach& reach : reaches) {
    if ((reach.*list).defined()) rows.push_back(reach.*list);
  }
  if (rows.size() != reaches.size()) return {};
  const auto is_on_cpu = [](const at::Tensor& row) { return row.is_cpu(); };
  if (std::all_of(rows.begin(), rows.end(), is_on_cpu)) return to_device(at::stack(rows), device);
  for (at::Tensor& row : rows) row = row.is_cpu() ? to_device(row, device) : row;
  return at::stack(rows);
}

bool same_lists(const RowReach& a, const RowReach& b) {
  return a.n_visible.defined() == b.n_visible.defined() && a.elsewhere.defined() == b.elsewhere.defined() &&
         a.weight.defined() == b.weight.defined();
}

}  // namespace

std::vector<at::Tensor> scores_together(const std::vector<HeadProblem>& problems, KeyScore score,
                                        const std::vector<RowReach>& reaches) {
  std::vector<at::Tensor> all(problems.size());
  if (problems.empty()) return all;
  const at::Device device = problems.front().keys.device();
  const std::vector<int64_t> no_targets(problems.size(), 0);
  for (const std::vector<size_t>& members : head_batches(problems, no_targets, score_bytes, batch_bytes(device))) {
    // Heads whose lists differ in kind are batches of their own.
    for (size_t first = 0, end = 0; first < members.size(); first = end) {
      std::vector<size_t> some;
      std::vector<RowReach> own;
      while (end < members.size() && same_lists(reaches[members[first]], reaches[members[end]])) {
        some.push_back(members[end]);
        own.push_back(reaches[members[end++]]);
      }
      const at::Device here = problems[some.front()].keys.device();
      const RowReach rows{stacked(own, &RowReach::n_visible, here), stacked(own, &RowReach::elsewhere, here),
                          stacked(own, &RowReach::weight, here)};
      const at::Tensor scores =
          summarize_heads(stacked(problems, some, &HeadProblem::queries), stacked(problems, some, &HeadProblem::keys),
                          stacked(problems, some, &HeadProblem::bias), score, {}, rows)
              .scores;
      for (size_t i = 0; i < some.size(); ++i) all[some[i]] = scores[static_cast<int64_t>(i)];
    }
  }
  return all;
}

}  // namespace kvc
