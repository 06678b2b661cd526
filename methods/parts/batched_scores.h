// Attention scores of many heads at once, for a GPU that one head leaves idle.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "harness/api/compaction_method.h"
#include "methods/parts/key_selection.h"

namespace kvc {

// summarize_heads().scores of every head for its own reach (empty ones: all see all), in the order of `problems`: heads
// of one shape in batches that fit into batch_bytes(). Each (T) float32. Works on any device.
std::vector<at::Tensor> scores_together(const std::vector<HeadProblem>& problems, KeyScore score,
                                        const std::vector<RowReach>& reaches);

}  // namespace kvc
