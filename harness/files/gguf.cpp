#include "harness/files/gguf.h"

#include <fmt/format.h>

#include <cstring>
#include <limits>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/files/gguf_parser.h"

namespace kvc {
namespace {

using gguf_detail::load;
using gguf_detail::ValueType;

[[noreturn]] void refuse(const std::string& fact, const std::string& path, const std::string& mend) {
  throw Error(ErrorKind::kData, fact, path, mend);
}

bool is_string(uint32_t type) {
  return type == ValueType::kString;
}
bool is_boolean(uint32_t type) {
  return type == ValueType::kBool;
}
bool is_integer(uint32_t type) {
  return type <= ValueType::kInt32 || type == ValueType::kUint64 || type == ValueType::kInt64;
}
bool is_number(uint32_t type) {
  return is_integer(type) || type == ValueType::kFloat32 || type == ValueType::kFloat64;
}

std::string read_string(const std::byte*& at) {
  const auto length = load<uint64_t>(at);
  std::string text(reinterpret_cast<const char*>(at + 8), length);
  at += 8 + length;
  return text;
}

// nullopt: a uint64 above the range of int64.
std::optional<int64_t> read_integer(const std::byte* at, uint32_t type) {
  switch (type) {
    case ValueType::kUint8:
      return load<uint8_t>(at);
    case ValueType::kInt8:
      return load<int8_t>(at);
    case ValueType::kUint16:
      return load<uint16_t>(at);
    case ValueType::kInt16:
      return load<int16_t>(at);
    case ValueType::kUint32:
      return load<uint32_t>(at);
    case ValueType::kInt32:
      return load<int32_t>(at);
    case ValueType::kInt64:
      return load<int64_t>(at);
    default:
      break;
  }
  const auto value = load<uint64_t>(at);
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return static_cast<int64_t>(value);
}

double read_number(const std::byte* at, uint32_t type) {
  if (type == ValueType::kFloat32) return static_cast<double>(load<float>(at));
  if (type == ValueType::kFloat64) return load<double>(at);
  if (type == ValueType::kUint64) return static_cast<double>(load<uint64_t>(at));
  return static_cast<double>(*read_integer(at, type));
}

}  // namespace

GgufFile::GgufFile(const std::string& path) : TensorSource(path), mapped_(path, "name a GGUF file") {
  gguf_detail::Header header = gguf_detail::parse_header(bytes(), path);
  version_ = header.version;
  entries_ = std::move(header.entries);
  set_tensors(std::move(header.tensors));
}

std::vector<std::string> GgufFile::keys() const {
  std::vector<std::string> list;
  for (const auto& [key, entry] : entries_) list.push_back(key);
  return list;
}

std::string GgufFile::shown(const std::string& key) const {
  const GgufValue& entry = entries_.at(key);
  if (entry.is_array) return fmt::format("[{} of {}]", entry.count, gguf_detail::value_type_name(entry.type));
  if (is_string(entry.type)) return fmt::format("'{}'", printable(string(key)));
  if (is_boolean(entry.type)) return boolean(key) ? "true" : "false";
  return fmt::format("{}", read_number(entry.data, entry.type));
}

const GgufValue& GgufFile::typed(const std::string& key, bool is_array, bool (*accepts)(uint32_t),
                                 std::string_view wanted) const {
  const auto it = entries_.find(key);
  if (it == entries_.end()) {
    refuse(fmt::format("metadata key '{}' is missing", printable(key)), path(),
           fmt::format("it should be {}; convert the model again with a current converter", wanted));
  }
  const GgufValue& entry = it->second;
  if (entry.is_array != is_array || !accepts(entry.type)) {
    refuse(fmt::format("metadata key '{}' is {}{} where {} is needed", printable(key),
                       entry.is_array ? "an array of " : "", gguf_detail::value_type_name(entry.type), wanted),
           path(), "convert the model again with a current converter");
  }
  return entry;
}

std::string GgufFile::string(const std::string& key) const {
  const std::byte* at = typed(key, false, is_string, "a string").data;
  return read_string(at);
}

int64_t GgufFile::checked_integer(const std::string& key, const std::byte* at, uint32_t type) const {
  const std::optional<int64_t> value = read_integer(at, type);
  if (!value) {
    refuse(fmt::format("metadata key '{}' holds {}, more than 2^63 - 1", printable(key), load<uint64_t>(at)), path(),
           "the file is damaged or made by a faulty converter");
  }
  return *value;
}

int64_t GgufFile::integer(const std::string& key) const {
  const GgufValue& entry = typed(key, false, is_integer, "an integer");
  return checked_integer(key, entry.data, entry.type);
}

double GgufFile::number(const std::string& key) const {
  const GgufValue& entry = typed(key, false, is_number, "a number");
  return read_number(entry.data, entry.type);
}

bool GgufFile::boolean(const std::string& key) const {
  return load<uint8_t>(typed(key, false, is_boolean, "a boolean").data) != 0;
}

std::vector<std::string> GgufFile::strings(const std::string& key) const {
  const GgufValue& entry = typed(key, true, is_string, "an array of strings");
  std::vector<std::string> list;
  list.reserve(entry.count);
  const std::byte* at = entry.data;
  for (uint64_t i = 0; i < entry.count; ++i) list.push_back(read_string(at));
  return list;
}

std::vector<int64_t> GgufFile::integers(const std::string& key) const {
  const GgufValue& entry = typed(key, true, is_integer, "an array of integers");
  const uint64_t width = gguf_detail::value_bytes(entry.type);
  std::vector<int64_t> list;
  list.reserve(entry.count);
  for (uint64_t i = 0; i < entry.count; ++i) list.push_back(checked_integer(key, entry.data + i * width, entry.type));
  return list;
}

std::vector<double> GgufFile::numbers(const std::string& key) const {
  const GgufValue& entry = typed(key, true, is_number, "an array of numbers");
  const uint64_t width = gguf_detail::value_bytes(entry.type);
  std::vector<double> list;
  list.reserve(entry.count);
  for (uint64_t i = 0; i < entry.count; ++i) list.push_back(read_number(entry.data + i * width, entry.type));
  return list;
}

std::optional<std::string> GgufFile::find_string(const std::string& key) const {
  return has(key) ? std::optional(string(key)) : std::nullopt;
}
std::optional<int64_t> GgufFile::find_integer(const std::string& key) const {
  return has(key) ? std::optional(integer(key)) : std::nullopt;
}
std::optional<double> GgufFile::find_number(const std::string& key) const {
  return has(key) ? std::optional(number(key)) : std::nullopt;
}
std::optional<bool> GgufFile::find_boolean(const std::string& key) const {
  return has(key) ? std::optional(boolean(key)) : std::nullopt;
}
std::optional<std::vector<std::string>> GgufFile::find_strings(const std::string& key) const {
  return has(key) ? std::optional(strings(key)) : std::nullopt;
}

}  // namespace kvc
