#include "harness/queries/text_keys.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/math/attention.h"
#include "harness/math/attention_statistics.h"

namespace kvc {
namespace {

constexpr int64_t kBlockQueries = 256;  // at a time, where the logits are made whole

// ln of the mass of queries (n,d) on the first n_visible (n) of the keys (T,d): (n) float32.
at::Tensor visible_log_mass(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& n_visible) {
  if (keys.is_cpu()) {
    const at::Tensor keys32 = keys.to(at::kFloat);
    const at::Tensor scaled = queries.to(at::kFloat).mul(1.0 / std::sqrt(static_cast<double>(queries.size(1))));
    const AttentionStatistics made = attention_statistics(scaled, keys32, {}, {}, KeySum::kPlain, {n_visible, {}});
    return made.row_max.add(made.row_sum.log()).squeeze(1);
  }
  const at::Tensor entry = at::arange(keys.size(0), keys.options().dtype(at::kLong));
  std::vector<at::Tensor> pieces;
  for (int64_t first = 0; first < queries.size(0); first += kBlockQueries) {
    const int64_t n_here = std::min(kBlockQueries, queries.size(0) - first);
    const at::Tensor visible = n_visible.narrow(0, first, n_here).to(keys.device()).unsqueeze(1);
    const at::Tensor logits = attention_logits(queries.narrow(0, first, n_here), keys, {});
    pieces.push_back(logits.masked_fill(entry >= visible, -std::numeric_limits<float>::infinity()).logsumexp(1));
  }
  return at::cat(pieces);
}

}  // namespace

void TextKeys::add(const Tails& tails) {
  std::vector<at::Tensor> layers;
  for (int64_t layer = 0; layer < tails.n_layers(); ++layer) layers.push_back(tails.keys(layer));
  int64_t first = sequences_.empty() ? 0 : sequences_.back().first_token + sequences_.back().length;
  for (int64_t row = 0; row < tails.batch(); ++row) {
    const int64_t length = tails.lengths()[static_cast<size_t>(row)];
    sequences_.push_back({first, length, groups_.size(), row});
    first += length;
  }
  groups_.push_back(std::move(layers));
}

at::Tensor TextKeys::log_mass(int64_t layer, int64_t kv_head, const at::Tensor& queries,
                              const std::vector<int64_t>& tokens) const {
  const int64_t group_size = queries.size(0);
  at::Tensor result = at::empty({group_size, queries.size(1)}, queries.options().dtype(at::kFloat));
  for (const Sequence& sequence : sequences_) {
    const auto begin = std::lower_bound(tokens.begin(), tokens.end(), sequence.first_token);
    const auto end = std::lower_bound(begin, tokens.end(), sequence.first_token + sequence.length);
    if (begin == end) continue;
    std::vector<int64_t> visible;
    for (auto token = begin; token != end; ++token) visible.push_back(*token - sequence.first_token + 1);
    const int64_t first = begin - tokens.begin(), n = end - begin;
    const at::Tensor keys = groups_[sequence.group][static_cast<size_t>(layer)]
                                .select(0, sequence.row)
                                .select(0, kv_head)
                                .narrow(0, 0, visible.back());
    const at::Tensor n_visible = at::tensor(visible, at::TensorOptions(at::kLong)).repeat({group_size});
    const at::Tensor mass =
        visible_log_mass(queries.narrow(1, first, n).flatten(0, 1).to(keys.device()), keys, n_visible);
    result.narrow(1, first, n).copy_(mass.view({group_size, n}));
  }
  return result.flatten();
}

int64_t TextKeys::bytes() const {
  int64_t total = 0;
  for (const auto& layers : groups_) {
    for (const at::Tensor& keys : layers) total += static_cast<int64_t>(keys.nbytes());
  }
  return total;
}

}  // namespace kvc
