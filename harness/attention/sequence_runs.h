// A packed batch cut into runs: sequences with few new rows together, each of the others alone.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "harness/kv/kv_cache.h"
#include "harness/math/attention.h"

namespace kvc {

// few(queries, tails) and many(queries, tails) return a PartialAttention, output (n, Hq, d) in the queries' dtype or
// float32 and, all of them or none, a log-sum-exp (n, Hq). A sequence belongs to `many` when its new tokens times g are
// most_rows or more: by its own rows alone, so that its neighbours do not change its result. The result's output is
// float32 where any is.
template <class Few, class Many>
PartialAttention attend_in_runs(const at::Tensor& queries, const TailView& tails, int64_t most_rows, const Few& few,
                                const Many& many) {
  const int64_t group = queries.size(1) / tails.n_kv_heads();
  const auto is_long = [&](size_t b) { return tails.n_new(b) * group >= most_rows; };
  std::vector<at::Tensor> outputs, sums;
  for (size_t first = 0, last = 0; first < tails.lengths.size(); first = last) {
    last = first + 1;
    while (!is_long(first) && last < tails.lengths.size() && !is_long(last)) ++last;
    const at::Tensor own = queries.slice(0, tails.offsets[first], tails.offsets[last]);
    const TailView own_tails = tails.slice(static_cast<int64_t>(first), static_cast<int64_t>(last));
    const PartialAttention part = is_long(first) ? many(own, own_tails) : few(own, own_tails);
    if (last - first == tails.lengths.size()) return part;
    outputs.push_back(part.output);
    if (part.log_sum_exp.defined()) sums.push_back(part.log_sum_exp);
  }
  if (outputs.empty()) return {at::zeros_like(queries), {}};
  return {at::cat(outputs), sums.empty() ? at::Tensor() : at::cat(sums)};
}

}  // namespace kvc
