#include "harness/math/gram_matrix.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "harness/math/panel_products.h"
#include "harness/math/row_blocks.h"

namespace kvc {
namespace {

constexpr int64_t kPanels = 4;
constexpr int64_t kSmallestPanel = 64;
constexpr int64_t kQuickPanels = 12;
constexpr int64_t kQuickRows = 4096;  // summed in float32 before they are added in float64

}  // namespace

Moments::Moments(const at::Tensor& a, const at::Tensor& b) {
  const int64_t t = a.size(1), m = b.size(1);
  const int64_t width = std::max(kSmallestPanel, (t + kPanels - 1) / kPanels);
  const at::Tensor sums = at::zeros({t, t + m}, a.options().dtype(at::kDouble));
  for_each_block(a, b, [&](const at::Tensor& joined) {
    // Panels of the Gram matrix from the diagonal on; the rest follows by symmetry.
    for (int64_t first = 0; first < t; first += width) {
      const int64_t n_here = std::min(width, t - first);
      sums.narrow(0, first, n_here)
          .narrow(1, first, t + m - first)
          .addmm_(joined.narrow(1, first, n_here).t(), joined.narrow(1, first, t + m - first));
    }
  });
  const at::Tensor upper = sums.narrow(1, 0, t).triu();
  gram = upper + upper.triu(1).t();
  moment = sums.narrow(1, t, m).contiguous();
}

namespace {

// By the products that the processor's registers want: twice the speed of a general product.
at::Tensor panel_gram(const at::Tensor& a) {
  const int64_t n = a.size(0), t = a.size(1);
  const at::Tensor sum =
      at::zeros({panels::parts(t, panels::kRows) * panels::kRows, panels::parts(t, panels::kPanel) * panels::kPanel},
                a.options());
  at::Tensor total;
  for (int64_t first = 0; first < n; first += kQuickRows) {
    const int64_t here = std::min(kQuickRows, n - first);
    panels::add_gram(a.const_data_ptr<float>() + first * a.stride(0), a.stride(0), here, t,
                     sum.mutable_data_ptr<float>());
    if (n <= kQuickRows) break;
    total = total.defined() ? total.add_(sum) : sum.to(at::kDouble);
    sum.zero_();
  }
  const at::Tensor upper = (total.defined() ? total.to(at::kFloat) : sum).narrow(0, 0, t).narrow(1, 0, t).triu();
  return upper + upper.triu(1).t();
}

}  // namespace

// Upper panels on float32 input as it is, the rest by symmetry.
at::Tensor quick_gram(const at::Tensor& a) {
  if (a.is_cpu() && a.stride(1) == 1) return panel_gram(a);
  const int64_t n = a.size(0), t = a.size(1);
  // Narrow panels leave most of a GPU idle.
  const int64_t panels = a.is_cpu() ? kQuickPanels : kPanels;
  const int64_t width = std::max(kSmallestPanel, (t + panels - 1) / panels);
  const bool one_sum = n <= kQuickRows;
  at::Tensor sum = at::empty({t, t}, a.options()), total;
  if (!one_sum) total = at::zeros({t, t}, a.options().dtype(at::kDouble));
  for (int64_t first = 0; first < n; first += kQuickRows) {
    const at::Tensor rows = a.narrow(0, first, std::min(kQuickRows, n - first));
    for (int64_t panel = 0; panel < t; panel += width) {
      const int64_t here = std::min(width, t - panel);
      at::Tensor out = sum.narrow(0, panel, here).narrow(1, panel, t - panel);
      at::mm_out(out, rows.narrow(1, panel, here).t(), rows.narrow(1, panel, t - panel));
    }
    if (!one_sum) total.add_(sum);
  }
  if (!one_sum) sum = total.to(at::kFloat);
  for (int64_t panel = 0; panel < t; panel += width) {
    const int64_t here = std::min(width, t - panel), behind = t - panel - here;
    if (behind == 0) break;
    sum.narrow(0, panel + here, behind)
        .narrow(1, panel, here)
        .copy_(sum.narrow(0, panel, here).narrow(1, panel + here, behind).t());
  }
  return sum;
}

}  // namespace kvc
