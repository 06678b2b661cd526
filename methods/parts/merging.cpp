#include "methods/parts/merging.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "methods/parts/running_sums.h"

namespace kvc {

Split split_entries(const at::Tensor& kept, int64_t source_len) {
  if (!kept.is_cpu()) return split_entries_by_sorting(kept, source_len);
  at::Tensor stays = at::zeros({source_len}, kept.options().dtype(at::kBool));
  stays.index_fill_(0, kept, 1);
  return {stays.nonzero().flatten(), stays.logical_not().nonzero().flatten()};
}

Split split_entries_by_sorting(const at::Tensor& kept, int64_t source_len) {
  at::Tensor stays = at::zeros({source_len}, kept.options().dtype(at::kByte));
  stays.index_fill_(0, kept, 1);
  const at::Tensor order = at::argsort(stays, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const int64_t n_evicted = source_len - kept.size(0);
  return {order.narrow(0, n_evicted, kept.size(0)), order.narrow(0, 0, n_evicted)};
}

at::Tensor range_sums(const at::Tensor& rows, const at::Tensor& first, const at::Tensor& last) {
  // Differences of running sums: in float64 they lose nothing that a model dtype could hold.
  const at::Tensor running = at::cat({at::zeros({1, rows.size(1)}, rows.options()), running_sums(rows)});
  return running.index_select(0, last) - running.index_select(0, first);
}

at::Tensor group_sums(const at::Tensor& rows, const at::Tensor& group, int64_t n_groups) {
  const auto [sorted, order] = at::sort(group, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const at::Tensor bounds = at::searchsorted(sorted, at::arange(n_groups + 1, group.options()));
  return range_sums(rows.index_select(0, order), bounds.narrow(0, 0, n_groups), bounds.narrow(0, 1, n_groups));
}

at::Tensor pass_values_on(const at::Tensor& values, const at::Tensor& gives, int64_t m) {
  const int64_t source_len = values.size(0), d = values.size(1);
  at::Tensor result = at::empty_like(values), gifts = at::zeros_like(values);
  const double* value = values.const_data_ptr<double>();
  const bool* given = gives.const_data_ptr<bool>();
  auto *out = result.mutable_data_ptr<double>(), *gift = gifts.mutable_data_ptr<double>();
  std::vector<double> received(static_cast<size_t>(d), 0.0);  // sum of the gifts of the m entries before
  for (int64_t i = 0; i < source_len; ++i) {
    const double share = given[i] ? 1.0 / static_cast<double>(std::min(m, source_len - 1 - i)) : 0.0;
    for (int64_t c = 0; c < d; ++c) {
      auto& sum = received[static_cast<size_t>(c)];
      out[i * d + c] = value[i * d + c] + sum;
      gift[i * d + c] = out[i * d + c] * share;
      sum += gift[i * d + c] - (i >= m ? gift[(i - m) * d + c] : 0.0);
    }
  }
  return result;
}

at::Tensor pass_values_on_in_blocks(const at::Tensor& values, const at::Tensor& gives, int64_t m, int64_t block) {
  const int64_t source_len = values.size(0), d = values.size(1);
  const int64_t n_blocks = (source_len + block - 1) / block, padded = n_blocks * block;
  const at::TensorOptions doubles = values.options(), whole = doubles.dtype(at::kLong);
  const at::Tensor entry = at::arange(padded, whole);
  const at::Tensor behind = (source_len - 1 - entry).clamp(1, m).to(at::kDouble);
  const at::Tensor share = at::constant_pad_nd(gives.to(at::kDouble), {0, padded - source_len}) / behind;

  // Within a block: out = values + received from before it + (what entry c gives) out_c, a triangular system.
  const at::Tensor row = at::arange(block, whole).unsqueeze(1), column = row.t();
  const at::Tensor reaches = at::logical_and(column < row, row - column <= m).to(at::kDouble);
  const at::Tensor unit = at::eye(block, doubles);
  const at::Tensor systems = unit - reaches * share.view({n_blocks, 1, block});
  const at::Tensor inverses = at::linalg_solve_triangular(systems, unit.expand({n_blocks, block, block}),
                                                          /*upper=*/false, /*left=*/true, /*unitriangular=*/true);
  const at::Tensor up_to = at::ones({block, block}, doubles).tril();
  const at::Tensor all = at::constant_pad_nd(values, {0, 0, 0, padded - source_len});
  const at::Tensor result = at::empty({padded, d}, doubles);
  const at::Tensor given = at::zeros({padded + 1, d}, doubles);  // by all entries before each
  for (int64_t k = 0; k < n_blocks; ++k) {
    const int64_t first = k * block;
    const at::Tensor before = given.narrow(0, first, 1);
    const at::Tensor out_of_reach = (entry.narrow(0, first, block) - m).clamp(0, first);
    const at::Tensor received = before - given.index_select(0, out_of_reach);
    const at::Tensor out = at::mm(inverses[k], all.narrow(0, first, block) + received);
    result.narrow(0, first, block).copy_(out);
    const at::Tensor gifts = out * share.narrow(0, first, block).unsqueeze(1);
    given.narrow(0, first + 1, block).copy_(before + at::mm(up_to, gifts));
  }
  return result.narrow(0, 0, source_len);
}

}  // namespace kvc
