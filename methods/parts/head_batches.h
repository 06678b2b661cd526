// Heads of one shape side by side, for methods that fit many at once on a GPU.
//
// Letters: H heads, T entries, n queries, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "harness/api/compaction_method.h"

namespace kvc {

struct HeadBatch {
  at::Tensor keys, values;  // (H,T,d)
  at::Tensor queries;       // (H,n,d)
  at::Tensor bias;          // (H,T), or undefined: no head has one
};

// Copies of the heads `members` of `problems`, which have one shape, dtype and device.
HeadBatch stack_heads(const std::vector<HeadProblem>& problems, const std::vector<size_t>& members);

// What a batch may take of a device: a sixth of a GPU's memory, which is the same on every run, so that equal requests
// are cut into equal batches; 4 GiB where this build cannot ask, and on the CPU.
int64_t batch_bytes(const at::Device& device);

// Indices of the heads in batches of one shape, those of larger targets first, so that heads of about the same target
// share a batch. bytes_of(problem, target) is what a head takes in a batch; one head is never too much.
std::vector<std::vector<size_t>> head_batches(const std::vector<HeadProblem>& problems,
                                              const std::vector<int64_t>& targets,
                                              const std::function<int64_t(const HeadProblem&, int64_t)>& bytes_of,
                                              int64_t bytes);

}  // namespace kvc
