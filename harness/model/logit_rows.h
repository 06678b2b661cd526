// Logits of the decoder's output rows, a bounded number of rows at a time.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "harness/kv/device_numbers.h"
#include "harness/model/model.h"

namespace kvc {

// visit(first row, logits (n, vocab) float32 contiguous where the model is) for all rows of `hidden` (N, hidden). 256
// rows of a vocabulary of 150,000 are 150 MB.
template <class Visit>
void for_device_logits(const Model& model, const at::Tensor& hidden, const Visit& visit) {
  constexpr int64_t kLogitRows = 256;
  for (int64_t first = 0; first < hidden.size(0); first += kLogitRows) {
    const int64_t n = std::min(kLogitRows, hidden.size(0) - first);
    visit(first, model.decoder().logits(hidden.narrow(0, first, n)).contiguous());
  }
}

// The same with logits on the CPU. On a GPU this copies whole rows: use it where whole distributions are needed. Tokens
// are chosen where the logits are (sampling_rows.h).
template <class Visit>
void for_logits(const Model& model, const at::Tensor& hidden, const Visit& visit) {
  for_device_logits(model, hidden, [&](int64_t first, const at::Tensor& logits) { visit(first, logits.cpu()); });
}

// The last row of each packed sequence, (B, hidden).
inline at::Tensor last_rows(const at::Tensor& hidden, const std::vector<int64_t>& sequence_offsets) {
  std::vector<int64_t> rows;
  for (size_t b = 1; b < sequence_offsets.size(); ++b) rows.push_back(sequence_offsets[b] - 1);
  return hidden.index_select(0, device_numbers(rows, hidden.device()));
}

inline int64_t longest(const std::vector<std::vector<int64_t>>& texts) {
  size_t most = 0;
  for (const auto& text : texts) most = std::max(most, text.size());
  return static_cast<int64_t>(most);
}

}  // namespace kvc
