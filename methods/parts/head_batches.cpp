#include "methods/parts/head_batches.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "harness/attention/ragged_attention_gpu.h"

namespace kvc {
namespace {

constexpr int64_t kUnknownBytes = int64_t{4} << 30;
constexpr int64_t kPartOfMemory = 6;

bool same_shape(const HeadProblem& a, const HeadProblem& b) {
  return a.keys.sizes() == b.keys.sizes() && a.queries.sizes() == b.queries.sizes() &&
         a.keys.scalar_type() == b.keys.scalar_type() && a.queries.scalar_type() == b.queries.scalar_type() &&
         a.keys.device() == b.keys.device() && a.bias.defined() == b.bias.defined();
}

}  // namespace

HeadBatch stack_heads(const std::vector<HeadProblem>& problems, const std::vector<size_t>& members) {
  const auto stacked = [&](at::Tensor HeadProblem::*part) {
    std::vector<at::Tensor> list;
    for (const size_t head : members) list.push_back(problems[head].*part);
    return at::stack(list);
  };
  HeadBatch batch{stacked(&HeadProblem::keys), stacked(&HeadProblem::values), stacked(&HeadProblem::queries), {}};
  if (problems[members.front()].bias.defined()) batch.bias = stacked(&HeadProblem::bias);
  return batch;
}

int64_t batch_bytes(const at::Device& device) {
  const int64_t all = device.is_cuda() ? gpu::memory_bytes(device) : 0;
  return all > 0 ? all / kPartOfMemory : kUnknownBytes;
}

std::vector<std::vector<size_t>> head_batches(const std::vector<HeadProblem>& problems,
                                              const std::vector<int64_t>& targets,
                                              const std::function<int64_t(const HeadProblem&, int64_t)>& bytes_of,
                                              int64_t bytes) {
  std::vector<std::vector<size_t>> shapes;
  for (size_t head = 0; head < problems.size(); ++head) {
    const auto known = std::find_if(shapes.begin(), shapes.end(), [&](const std::vector<size_t>& members) {
      return same_shape(problems[members.front()], problems[head]);
    });
    if (known == shapes.end()) {
      shapes.push_back({head});
    } else {
      known->push_back(head);
    }
  }
  std::vector<std::vector<size_t>> batches;
  for (std::vector<size_t>& members : shapes) {
    std::stable_sort(members.begin(), members.end(), [&](size_t a, size_t b) { return targets[a] > targets[b]; });
    // Heads of a batch are filled up to the largest of its targets, which is that of the first.
    for (size_t first = 0; first < members.size();) {
      const int64_t each = std::max<int64_t>(1, bytes_of(problems[members[first]], targets[members[first]]));
      const auto many = static_cast<size_t>(std::max<int64_t>(1, bytes / each));
      const size_t end = std::min(members.size(), first + many);
      batches.emplace_back(members.begin() + static_cast<int64_t>(first), members.begin() + static_cast<int64_t>(end));
      first = end;
    }
  }
  return batches;
}

}  // namespace kvc
