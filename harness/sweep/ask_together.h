// Which caches of one document are asked in one batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "harness/api/task.h"

namespace kvc {

// How many caches of one document are asked in one batch, where the task can (Task::batch()).
struct AskTogether {
  // 0, auto: as many as leave every answer's bits as they are (Decoder::independent_rows()), so one on a GPU; else at
  // most so many, on any device; 1: each cache alone. Never more than hold kMaxTailBytes of sequences behind them.
  int64_t caches = 0;
  static constexpr int64_t kMaxTailBytes = int64_t{1} << 30;

  // For a cache whose questions are such a batch.
  int64_t at_once(const Model& model, const Task::Batch& batch) const;
};

// 0 .. n-1 in the fewest runs [first, second) of at most `most`, of like size so that none is nearly empty.
std::vector<std::pair<size_t, size_t>> batches_of(size_t n, size_t most);

}  // namespace kvc
