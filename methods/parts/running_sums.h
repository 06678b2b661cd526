// Running sums that have the same bits on every run, also on a GPU.
#pragma once

#include <ATen/core/Tensor.h>

namespace kvc {

// values.cumsum(0) of (E) or (E, c), float32 or float64: on the CPU its bits. On a GPU LibTorch scans a tensor that is
// one single line by a method whose order of additions depends on which block is ready first; where there are two lines
// the order is that of the shapes, so one line is scanned beside a copy of itself.
at::Tensor running_sums(const at::Tensor& values);

}  // namespace kvc
