// GGUF (versions 2 and 3, little-endian): metadata and tensors of one model
// file, memory-mapped and read-only. The file is untrusted: each length, count
// and offset is compared with the file's size before it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/files/mapped_file.h"
#include "harness/files/stored_tensor.h"

namespace kvc {

using GgufTensor = StoredTensor;

// Where a metadata value lies; read through GgufFile's getters.
struct GgufValue {
  std::uint32_t type = 0;  // GGUF value type; of the elements if is_array
  bool is_array = false;
  std::uint64_t count = 1;          // elements
  const std::byte* data = nullptr;  // first value, inside the mapping
};

class GgufFile : public TensorSource {
 public:
  // Reads and checks the whole header; tensor data is only mapped. Throws
  // Error(kData) naming the file, the key or tensor, the numbers, and the way
  // out. The file must not be shortened while it is open: the system then ends
  // the program (SIGBUS).
  explicit GgufFile(const std::string& path);

  std::int64_t version() const { return version_; }
  std::span<const std::byte> bytes() const { return mapped_.bytes(); }  // the whole file

  bool has(const std::string& key) const { return entries_.contains(key); }
  std::vector<std::string> keys() const;  // sorted

  // The value as a message shows it: 8, 0.5, true, 'text', [512 strings]. The key is there.
  std::string shown(const std::string& key) const;

  // Values by key. Throws Error(kData) when the key is missing or of another
  // type. Integers of every width count as integers, and as numbers too; both
  // float widths are numbers. Arrays are copied out at each call.
  std::string string(const std::string& key) const;
  std::int64_t integer(const std::string& key) const;
  double number(const std::string& key) const;
  bool boolean(const std::string& key) const;
  std::vector<std::string> strings(const std::string& key) const;
  std::vector<std::int64_t> integers(const std::string& key) const;
  std::vector<double> numbers(const std::string& key) const;

  // The same for keys that a file need not have: nullopt when missing, the same
  // error when of another type.
  std::optional<std::string> find_string(const std::string& key) const;
  std::optional<std::int64_t> find_integer(const std::string& key) const;
  std::optional<double> find_number(const std::string& key) const;
  std::optional<bool> find_boolean(const std::string& key) const;
  std::optional<std::vector<std::string>> find_strings(const std::string& key) const;

 private:
  const GgufValue& typed(const std::string& key, bool is_array, bool (*accepts)(std::uint32_t),
                         std::string_view wanted) const;
  std::int64_t checked_integer(const std::string& key, const std::byte* at, std::uint32_t type) const;

  MappedFile mapped_;
  std::int64_t version_ = 0;
  std::map<std::string, GgufValue> entries_;
};

}  // namespace kvc
