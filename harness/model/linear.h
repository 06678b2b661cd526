// x W^T, by the fastest way for the number of rows and the processor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvc {

// rows (M, K), weight (N, K), bias (N) or undefined, all of one dtype (float32 or bfloat16) and device. Returns (M, N)
// of the rows' dtype; sums in float32, rounded once.
at::Tensor project(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& bias = {});
at::Tensor project_float(const at::Tensor& rows, const at::Tensor& weight);  // the result is float32

// True where up to kFewRows rows are multiplied on the CPU by this project's kernel, which reads every weight once and
// gives a row the same bits in any batch. Not for bfloat16 on processors that multiply it
// themselves; LibTorch is faster there.
inline constexpr int64_t kFewRows = 32;
bool has_few_rows_kernel(at::ScalarType dtype);

}  // namespace kvc
