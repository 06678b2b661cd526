#include "harness/math/block_cholesky.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace kvc {
namespace {

constexpr int64_t kBlockColumns = 128;

// Rows [first, first + rows) and columns [left, left + columns) of every matrix: a view.
at::Tensor part_of(const at::Tensor& matrices, int64_t first, int64_t rows, int64_t left, int64_t columns) {
  return matrices.narrow(1, first, rows).narrow(2, left, columns);
}

}  // namespace

BlockCholesky::BlockCholesky(const at::Tensor& matrices) : lower_(matrices) {
  const int64_t heads = matrices.size(0), t = matrices.size(1);
  inverses_ = at::zeros({heads, t, std::min(kBlockColumns, t)}, matrices.options());
  failed_ = at::zeros({heads}, matrices.options().dtype(at::kBool));
  const at::Tensor eye = at::eye(std::min(kBlockColumns, t), matrices.options());
  for (int64_t first = 0; first < t; first += kBlockColumns) {
    const int64_t here = std::min(kBlockColumns, t - first), behind = t - first - here;
    const at::Tensor corner = part_of(lower_, first, here, first, here);
    const auto [factor, info] = at::linalg_cholesky_ex(corner);
    failed_.logical_or_(info.ne(0));
    corner.copy_(factor);
    const at::Tensor unit = eye.narrow(0, 0, here).narrow(1, 0, here).expand({heads, here, here});
    const at::Tensor inverse = at::linalg_solve_triangular(factor, unit, /*upper=*/false);
    part_of(inverses_, first, here, 0, here).copy_(inverse);
    if (behind == 0) break;
    const at::Tensor below = part_of(lower_, first + here, behind, first, here);
    const at::Tensor panel = at::bmm(below, inverse.transpose(1, 2));
    below.copy_(panel);
    part_of(lower_, first + here, behind, first + here, behind).baddbmm_(panel, panel.transpose(1, 2), 1, -1);
  }
}

at::Tensor BlockCholesky::solve(const at::Tensor& b) const {
  const int64_t t = lower_.size(1), blocks = (t + kBlockColumns - 1) / kBlockColumns;
  at::Tensor x = b.clone();
  for (int64_t k = 0; k < blocks; ++k) {
    const int64_t first = k * kBlockColumns, here = std::min(kBlockColumns, t - first);
    const at::Tensor own = x.narrow(1, first, here);
    if (first > 0) own.baddbmm_(part_of(lower_, first, here, 0, first), x.narrow(1, 0, first), 1, -1);
    own.copy_(at::bmm(part_of(inverses_, first, here, 0, here), own));
  }
  for (int64_t k = blocks; k-- > 0;) {
    const int64_t first = k * kBlockColumns, here = std::min(kBlockColumns, t - first), next = first + here;
    const at::Tensor own = x.narrow(1, first, here);
    if (next < t) {
      own.baddbmm_(part_of(lower_, next, t - next, first, here).transpose(1, 2), x.narrow(1, next, t - next), 1, -1);
    }
    own.copy_(at::bmm(part_of(inverses_, first, here, 0, here).transpose(1, 2), own));
  }
  return x;
}

at::Tensor BlockCholesky::inverse_factors() const {
  const int64_t t = lower_.size(1);
  at::Tensor inverse = at::zeros_like(lower_);
  for (int64_t first = 0; first < t; first += kBlockColumns) {
    const int64_t here = std::min(kBlockColumns, t - first);
    const at::Tensor corner = part_of(inverses_, first, here, 0, here);
    part_of(inverse, first, here, first, here).copy_(corner);
    if (first == 0) continue;
    const at::Tensor left = at::bmm(part_of(lower_, first, here, 0, first), part_of(inverse, 0, first, 0, first));
    part_of(inverse, first, here, 0, first).copy_(at::bmm(corner, left).neg_());
  }
  return inverse;
}

}  // namespace kvc
