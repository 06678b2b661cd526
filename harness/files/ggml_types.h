// The number formats of GGUF tensors: names, block sizes, and decoding to
// float. Layouts as in ggml's ggml-common.h and ggml-quants.c (MIT); every
// format is little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace kvc {

// Values of one tensor row come in blocks: `block_values` numbers in
// `block_bytes` bytes.
struct GgmlType {
  std::uint32_t id;
  const char* name;
  std::int64_t block_values;
  std::int64_t block_bytes;
  // Decodes `blocks` blocks at `source` (no alignment needed) into blocks *
  // block_values floats.
  void (*decode)(const std::byte* source, std::int64_t blocks, float* out);
};

// Null for a type that is not decoded here.
const GgmlType* find_ggml_type(std::uint32_t id);
// The name in ggml, or "type 99", also for types that are not decoded here.
std::string ggml_type_name(std::uint32_t id);
// "F32, F16, ...", for messages.
std::string supported_ggml_types();

}  // namespace kvc
