#include "harness/model/formats/dequantize.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "harness/core/error.h"

namespace kvc {
namespace {

// All ones in the exponent is infinity or NaN; an integer maximum is a loop
// that compilers vectorise.
bool all_finite(const float* values, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(values[i]) & 0x7f800000U);
  return largest != 0x7f800000U;
}

// Finite float32 to bfloat16, to nearest even.
void convert(const float* from, int64_t count, c10::BFloat16* to) {
  for (int64_t i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<uint32_t>(from[i]);
    to[i].x = static_cast<uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
  }
}
void convert(const float* from, int64_t count, c10::Half* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = c10::Half(from[i]);
}
void convert(const float* from, int64_t count, float* to) {
  std::copy(from, from + count, to);
}

template <class T>
void fill(const StoredTensor& tensor, const at::Tensor& out, const std::string& where, const RowMap& source_row) {
  const int64_t columns = out.size(1), stride = out.stride(0);
  const int64_t blocks = columns / tensor.type->block_values;
  const int64_t row_bytes = blocks * tensor.type->block_bytes;
  T* const base = out.mutable_data_ptr<T>();
  const int64_t grain = std::max<int64_t>(1, 32768 / columns);
  at::parallel_for(0, out.size(0), grain, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(columns));
    for (int64_t r = begin; r < end; ++r) {
      const int64_t source = source_row ? source_row(r) : r;
      tensor.type->decode(tensor.bytes.data() + source * row_bytes, blocks, row.data());
      if (!all_finite(row.data(), columns)) {
        throw Error(ErrorKind::kData,
                    fmt::format("tensor '{}' has a value in row {} that is not finite", tensor.name, source), where,
                    "the file is damaged: download it again or convert it anew");
      }
      convert(row.data(), columns, base + r * stride);
    }
  });
}

}  // namespace

void dequantize_into(const StoredTensor& tensor, const at::Tensor& out, const std::string& where,
                     const RowMap& source_row) {
  const int64_t columns = tensor.shape.back();
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
  if (out.dim() != 2 || out.size(0) != rows || out.size(1) != columns || out.stride(1) != 1 || !out.is_cpu()) {
    throw Error(ErrorKind::kInternal,
                fmt::format("tensor '{}' of {} x {} does not fit its place", tensor.name, rows, columns), where, "");
  }
  switch (out.scalar_type()) {
    case at::kFloat:
      return fill<float>(tensor, out, where, source_row);
    case at::kBFloat16:
      return fill<c10::BFloat16>(tensor, out, where, source_row);
    case at::kHalf:
      return fill<c10::Half>(tensor, out, where, source_row);
    default:
      throw Error(ErrorKind::kInternal, fmt::format("no weights in {}", toString(out.scalar_type())), where, "");
  }
}

at::Tensor dequantize(const StoredTensor& tensor, at::ScalarType dtype, const std::string& where) {
  const at::Tensor out = at::empty(tensor.shape, at::dtype(dtype));
  dequantize_into(tensor, out.view({-1, tensor.shape.back()}), where);
  return out;
}

}  // namespace kvc
