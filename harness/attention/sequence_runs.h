// A packed batch cut into runs: sequences with few new rows together, each of the others alone.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "harness/math/attention.h"

namespace kvc {

// Attention of one run: queries (n, Hq, d), keys and values (b, Hkv, capacity, d), lengths (b), offsets (b + 1) from 0.
// few and many return a PartialAttention, output (n, Hq, d) in the queries' dtype or float32 and, all of them or none,
// a log-sum-exp (n, Hq). A sequence belongs to `many` when its new tokens times g are most_rows or more: by its own
// rows alone, so that its neighbours do not change its result. The result's output is float32 where any is.
template <class Few, class Many>
PartialAttention attend_in_runs(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                const std::vector<int64_t>& lengths, const std::vector<int64_t>& offsets,
                                int64_t most_rows, const Few& few, const Many& many) {
  const int64_t group = queries.size(1) / keys.size(1);
  const auto is_long = [&](size_t b) { return (offsets[b + 1] - offsets[b]) * group >= most_rows; };
  std::vector<at::Tensor> outputs, sums;
  for (size_t first = 0, last = 0; first < lengths.size(); first = last) {
    last = first + 1;
    while (!is_long(first) && last < lengths.size() && !is_long(last)) ++last;
    const auto from = static_cast<std::ptrdiff_t>(first), to = static_cast<std::ptrdiff_t>(last);
    const std::vector<int64_t> own_lengths(lengths.begin() + from, lengths.begin() + to);
    std::vector<int64_t> own_offsets(offsets.begin() + from, offsets.begin() + to + 1);
    for (int64_t& offset : own_offsets) offset -= offsets[first];
    const at::Tensor own = queries.slice(0, offsets[first], offsets[last]);
    const at::Tensor own_keys = keys.slice(0, from, to), own_values = values.slice(0, from, to);
    const PartialAttention part = is_long(first) ? many(own, own_keys, own_values, own_lengths, own_offsets)
                                                 : few(own, own_keys, own_values, own_lengths, own_offsets);
    if (last - first == lengths.size()) return part;
    outputs.push_back(part.output);
    if (part.log_sum_exp.defined()) sums.push_back(part.log_sum_exp);
  }
  if (outputs.empty()) return {at::zeros_like(queries), {}};
  return {at::cat(outputs), sums.empty() ? at::Tensor() : at::cat(sums)};
}

}  // namespace kvc
