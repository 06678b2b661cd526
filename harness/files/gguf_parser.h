// Checks and parses the header of a GGUF file; private to gguf.cpp.
// Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/files/gguf.h"

namespace kvc::gguf_detail {

enum ValueType : std::uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// "uint32", "string", ...; "type 99".
std::string value_type_name(std::uint32_t type);
// Bytes of one value; 0 for strings, arrays and unknown types.
std::uint64_t value_bytes(std::uint32_t type);

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

struct Header {
  std::int64_t version = 0;
  std::map<std::string, GgufValue> entries;
  std::vector<StoredTensor> tensors;
};

// Throws Error(kData); what it returns lies wholly inside `bytes`.
Header parse_header(std::span<const std::byte> bytes, const std::string& path);

}  // namespace kvc::gguf_detail
