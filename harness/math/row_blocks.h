// Float64 copies of a few hundred rows at a time, so that a large float32 table need not be copied as a whole; on a GPU
// some more.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>

namespace kvc {

inline constexpr int64_t kBlockRows = 512;  // with a few hundred columns they stay within a core's cache
inline constexpr int64_t kDeviceBlockNumbers = int64_t{1}
                                               << 27;  // elsewhere a block is 1 GiB: few products, well filled

inline int64_t block_rows(const at::Tensor& a, int64_t columns) {
  return a.is_cpu() ? kBlockRows : std::max(kBlockRows, kDeviceBlockNumbers / std::max<int64_t>(1, columns));
}

// Calls work((rows, t + m) float64) with rows of A (n,t) and of B (n,m) beside each other, so that one product serves
// both. The memory is that of the next block too.
template <class Work>
void for_each_block(const at::Tensor& a, const at::Tensor& b, const Work& work) {
  const int64_t n = a.size(0), t = a.size(1), m = b.size(1);
  const int64_t most = block_rows(a, t + m);
  const at::Tensor memory = at::empty({std::min(n, most), t + m}, a.options().dtype(at::kDouble));
  for (int64_t first = 0; first < n; first += most) {
    const int64_t n_here = std::min(most, n - first);
    const at::Tensor joined = memory.narrow(0, 0, n_here);
    joined.narrow(1, 0, t).copy_(a.narrow(0, first, n_here));
    joined.narrow(1, t, m).copy_(b.narrow(0, first, n_here));
    work(joined);
  }
}

}  // namespace kvc
