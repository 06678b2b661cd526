// GGUF (versions 2 and 3, little-endian): metadata and tensors of one model file, memory-mapped and read-only.
// The file is untrusted: each length, count and offset is compared with the file's size before it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "harness/model/formats/ggml_types.h"

namespace kvc {

struct GgufTensor {
  std::string name;
  const GgmlType* type = nullptr;  // never null
  std::vector<std::int64_t>
      shape;  // torch order, (rows, columns): GGUF's dimensions backwards; 1 to 4, each at least 1
  std::span<const std::byte> bytes;  // inside the mapping: valid as long as the GgufFile
};

// Where a metadata value lies; read through GgufFile's getters.
struct GgufValue {
  std::uint32_t type = 0;  // GGUF value type; of the elements if is_array
  bool is_array = false;
  std::uint64_t count = 1;          // elements
  const std::byte* data = nullptr;  // first value, inside the mapping
};

class GgufFile {
 public:
  // Reads and checks the whole header; tensor data is only mapped. Throws Error(kData) naming the file, the key or
  // tensor, the numbers, and the way out. The file must not be shortened while it is open: the system then ends the
  // program (SIGBUS).
  explicit GgufFile(const std::string& path);

  const std::string& path() const { return path_; }
  std::int64_t version() const { return version_; }
  std::span<const std::byte> bytes() const { return bytes_; }  // the whole file

  bool has(const std::string& key) const { return entries_.contains(key); }
  std::vector<std::string> keys() const;  // sorted

  // Values by key. Throws Error(kData) when the key is missing or of another type. Integers of every width count as
  // integers, and as numbers too; both float widths are numbers. Arrays are copied out at each call.
  std::string string(const std::string& key) const;
  std::int64_t integer(const std::string& key) const;
  double number(const std::string& key) const;
  bool boolean(const std::string& key) const;
  std::vector<std::string> strings(const std::string& key) const;
  std::vector<std::int64_t> integers(const std::string& key) const;
  std::vector<double> numbers(const std::string& key) const;

  // The same for keys that a file need not have: nullopt when missing, the same error when of another type.
  std::optional<std::string> find_string(const std::string& key) const;
  std::optional<std::int64_t> find_integer(const std::string& key) const;
  std::optional<double> find_number(const std::string& key) const;
  std::optional<bool> find_boolean(const std::string& key) const;
  std::optional<std::vector<std::string>> find_strings(const std::string& key) const;
  std::optional<std::vector<std::int64_t>> find_integers(const std::string& key) const;
  std::optional<std::vector<double>> find_numbers(const std::string& key) const;

  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in the file's order
  const GgufTensor* find_tensor(const std::string& name) const;        // null when there is none

 private:
  const GgufValue& typed(const std::string& key, bool is_array, bool (*accepts)(std::uint32_t),
                         std::string_view wanted) const;
  std::int64_t checked_integer(const std::string& key, const std::byte* at, std::uint32_t type) const;

  std::string path_;
  std::shared_ptr<const void> mapping_;
  std::span<const std::byte> bytes_;
  std::int64_t version_ = 0;
  std::map<std::string, GgufValue> entries_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, std::size_t> tensor_index_;
};

}  // namespace kvc
