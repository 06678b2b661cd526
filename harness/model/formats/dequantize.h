// Stored tensors to torch tensors of the compute dtype, row by row: beside the
// result only one float32 row a thread is held.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "harness/files/stored_tensor.h"

namespace kvc {

// Row of the file that becomes row i of the result; empty = the same row.
using RowMap = std::function<std::int64_t(std::int64_t)>;

// Fills `out`: CPU, float32, bfloat16 or float16, rows contiguous, (rows,
// columns) with the tensor's element count and row length; a one-dimensional
// tensor is one row. Rounds to nearest even. Throws Error(kData) naming the
// tensor and `where` when a value is not finite; Error(kInternal) when `out`
// does not fit. Parallel over rows.
void dequantize_into(const StoredTensor& tensor, const at::Tensor& out, const std::string& where,
                     const RowMap& source_row = {});

// The whole tensor in its own shape.
at::Tensor dequantize(const StoredTensor& tensor, at::ScalarType dtype, const std::string& where);

}  // namespace kvc
