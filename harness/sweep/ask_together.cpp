#include "harness/sweep/ask_together.h"

#include <algorithm>

#include "harness/model/model.h"

namespace kvc {

int64_t AskTogether::at_once(const Model& model, const Task::Batch& batch) const {
  if (caches == 1 || batch.sequences <= 0) return 1;
  const DecoderSpec& spec = model.spec();
  const auto element = static_cast<int64_t>(model.decoder().options().dtype().itemsize());
  const int64_t token_bytes = 2 * spec.n_layers * spec.n_kv_heads * spec.head_dim * element;
  const int64_t within_memory = kMaxTailBytes / (batch.sequences * std::max<int64_t>(batch.tokens, 1) * token_bytes);
  const int64_t wanted = caches > 0 ? caches : model.decoder().independent_rows() / batch.sequences;
  return std::max<int64_t>(1, std::min(wanted, within_memory));
}

std::vector<std::pair<size_t, size_t>> batches_of(size_t n, size_t most) {
  const size_t n_batches = (n + most - 1) / most;
  std::vector<std::pair<size_t, size_t>> batches;
  for (size_t b = 0; b < n_batches; ++b) batches.emplace_back(n * b / n_batches, n * (b + 1) / n_batches);
  return batches;
}

}  // namespace kvc
