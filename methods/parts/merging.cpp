#include "methods/parts/merging.h"

#include <ATen/ATen.h>

namespace kvc {

Split split_entries(const at::Tensor& kept, int64_t source_len) {
  at::Tensor stays = at::zeros({source_len}, kept.options().dtype(at::kBool));
  stays.index_fill_(0, kept, 1);
  return {stays.nonzero().flatten(), stays.logical_not().nonzero().flatten()};
}

at::Tensor range_sums(const at::Tensor& rows, const at::Tensor& first, const at::Tensor& last) {
  // Differences of running sums: in float64 they lose nothing that a model dtype could hold.
  const at::Tensor running = at::cat({at::zeros({1, rows.size(1)}, rows.options()), rows.cumsum(0)});
  return running.index_select(0, last) - running.index_select(0, first);
}

at::Tensor group_sums(const at::Tensor& rows, const at::Tensor& group, int64_t n_groups) {
  const auto [sorted, order] = at::sort(group, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const at::Tensor bounds = at::searchsorted(sorted, at::arange(n_groups + 1, group.options()));
  return range_sums(rows.index_select(0, order), bounds.narrow(0, 0, n_groups), bounds.narrow(0, 1, n_groups));
}

}  // namespace kvc
