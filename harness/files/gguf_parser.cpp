#include "harness/files/gguf_parser.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/files/foreign_file.h"

namespace kvc::gguf_detail {
namespace {

constexpr uint64_t kMaxAlignment = 1 << 20;
const char* const kDownloadAgain = "download it again";
const char* const kDamaged =
    "the file is damaged or made by a faulty "
    "converter: download it again or convert it anew";

class Parser {
 public:
  Parser(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  Header parse() {
    Header header;
    header.version = read_start();
    const auto n_tensors = read<uint64_t>("the number of tensors");
    const auto n_entries = read<uint64_t>("the number of metadata keys");
    // The smallest entry: an empty key, a type, one byte. The smallest tensor:
    // an empty name, one dimension, type, offset.
    check_count(n_entries, 8 + 4 + 1, "metadata keys");
    check_count(n_tensors, 8 + 4 + 8 + 4 + 8, "tensors");
    for (uint64_t i = 0; i < n_entries; ++i) read_entry(header.entries, i, n_entries);
    std::vector<uint64_t> offsets;
    std::map<std::string, size_t, std::less<>> names;
    for (uint64_t i = 0; i < n_tensors; ++i) {
      StoredTensor tensor = read_tensor(fmt::format("tensor {} of {}", i + 1, n_tensors), offsets);
      if (!names.emplace(tensor.name, i).second)
        fail(fmt::format("two tensors are named '{}'", printable(tensor.name)), kDamaged);
      header.tensors.push_back(std::move(tensor));
    }
    place_tensors(header, offsets);
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& fact, const std::string& mend) const {
    throw Error(ErrorKind::kData, fact, path_, mend);
  }

  uint64_t left() const { return bytes_.size() - at_; }

  const std::byte* take(uint64_t count, const std::string& what) {
    if (count > left()) {
      fail(fmt::format("the file is truncated: {} needs {} bytes at byte {} of {}", what, count, at_, bytes_.size()),
           kDownloadAgain);
    }
    const std::byte* start = bytes_.data() + at_;
    at_ += count;
    return start;
  }

  template <class T>
  T read(const std::string& what) {
    return load<T>(take(sizeof(T), what));
  }

  std::string_view read_string(const std::string& what) {
    const auto length = read<uint64_t>("the length of " + what);
    return {reinterpret_cast<const char*>(take(length, what)), length};
  }

  void check_count(uint64_t count, uint64_t least_bytes, const char* what) const {
    if (count > left() / least_bytes) {
      fail(fmt::format("the header claims {} {}, more than the file's {} bytes can hold", count, what, bytes_.size()),
           std::string("the file is truncated or damaged: ") + kDownloadAgain);
    }
  }

  int64_t read_start() {
    const std::string_view text{reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
    if (!text.starts_with("GGUF")) refuse_other(text);
    at_ = 4;
    const auto version = read<uint32_t>("the version");
    if (version == 2 || version == 3) return version;
    const uint32_t swapped = __builtin_bswap32(version);
    if (swapped >= 1 && swapped <= 3) {
      fail(fmt::format("this is a big-endian GGUF file (version {})", swapped),
           "take the little-endian file of the model");
    }
    fail(fmt::format("this is GGUF version {}; versions 2 and 3 are read", version),
         version < 2 ? "convert the model again with a current converter" : "take a file of version 3");
  }

  [[noreturn]] void refuse_other(std::string_view text) const {
    refuse_foreign_file(text, path_, "GGUF file");
    if (text.size() > 9 && text[8] == '{') {
      fail("this is not a GGUF file but probably safetensors", "name the folder in which it lies with its config.json");
    }
    fail(fmt::format("this is not a GGUF file: it starts with '{}' instead of 'GGUF'", printable(text.substr(0, 4))),
         "name a GGUF file, or download it again");
  }

  void read_entry(std::map<std::string, GgufValue>& entries, uint64_t index, uint64_t count) {
    const std::string key{read_string(fmt::format("metadata key {} of {}", index + 1, count))};
    const std::string what = fmt::format("metadata key '{}'", printable(key));
    GgufValue entry;
    entry.type = read<uint32_t>("the type of " + what);
    if (entry.type == kArray) {
      entry.is_array = true;
      entry.type = read<uint32_t>("the element type of " + what);
      entry.count = read<uint64_t>("the element count of " + what);
      if (entry.type == kArray) fail(what + " is an array of arrays, which no model needs", kDamaged);
    }
    read_values(entry, what);
    if (!entries.emplace(key, entry).second) fail(what + " appears twice in the header", kDamaged);
  }

  void read_values(GgufValue& entry, const std::string& what) {
    const uint64_t width = value_bytes(entry.type);
    if (width == 0 && entry.type != kString) {
      fail(fmt::format("{} has the unknown value type {}", what, entry.type), kDamaged);
    }
    const uint64_t least = width == 0 ? 8 : width;  // a string is at least its length
    if (entry.count > left() / least) {
      fail(fmt::format("the file is truncated: {} has {} values of at least {} "
                       "bytes at byte {} of {}",
                       what, entry.count, least, at_, bytes_.size()),
           kDownloadAgain);
    }
    entry.data = bytes_.data() + at_;
    if (entry.type == kString) {
      for (uint64_t i = 0; i < entry.count; ++i) read_string(what);
      return;
    }
    at_ += entry.count * width;
    if (entry.type != kBool) return;
    for (uint64_t i = 0; i < entry.count; ++i) {
      const auto value = load<uint8_t>(entry.data + i);
      if (value > 1) fail(fmt::format("{} is a boolean of value {}", what, value), kDamaged);
    }
  }

  StoredTensor read_tensor(const std::string& which, std::vector<uint64_t>& offsets) {
    StoredTensor tensor;
    tensor.name = read_string("the name of " + which);
    const std::string what = fmt::format("tensor '{}'", printable(tensor.name));
    const auto n_dims = read<uint32_t>("the dimension count of " + what);
    if (n_dims < 1 || n_dims > 4)
      fail(fmt::format("{} has {} dimensions; 1 to 4 are possible", what, n_dims), kDamaged);
    for (uint32_t i = 0; i < n_dims; ++i) {
      const auto size = read<uint64_t>("the dimensions of " + what);
      if (size < 1 || size > uint64_t{1} << 48) fail(fmt::format("{} has a dimension of {}", what, size), kDamaged);
      tensor.shape.insert(tensor.shape.begin(),
                          static_cast<int64_t>(size));  // the fastest comes first in the file
    }
    const auto type = read<uint32_t>("the type of " + what);
    tensor.type = find_ggml_type(type);
    if (tensor.type == nullptr) {
      fail(fmt::format("{} is stored as {}, which is not supported", what, ggml_type_name(type)),
           "take another quantisation of the model; supported: " + supported_ggml_types());
    }
    offsets.push_back(read<uint64_t>("the offset of " + what));
    return tensor;
  }

  uint64_t alignment(const std::map<std::string, GgufValue>& entries) const {
    const auto it = entries.find("general.alignment");
    if (it == entries.end()) return 32;
    if (it->second.is_array || it->second.type != kUint32)
      fail("metadata key 'general.alignment' is not a uint32", kDamaged);
    const uint64_t value = load<uint32_t>(it->second.data);
    if (!std::has_single_bit(value) || value > kMaxAlignment) {
      fail(fmt::format("metadata key 'general.alignment' is {}; a power of two "
                       "up to {} is possible",
                       value, kMaxAlignment),
           kDamaged);
    }
    return value;
  }

  static uint64_t checked_bytes(const StoredTensor& tensor) {
    uint64_t bytes = static_cast<uint64_t>(tensor.shape.back() / tensor.type->block_values);
    bool overflow = __builtin_mul_overflow(bytes, static_cast<uint64_t>(tensor.type->block_bytes), &bytes);
    for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) {
      overflow |= __builtin_mul_overflow(bytes, static_cast<uint64_t>(tensor.shape[i]), &bytes);
    }
    return overflow ? UINT64_MAX : bytes;
  }

  void place_tensors(Header& header, const std::vector<uint64_t>& offsets) {
    const uint64_t align = alignment(header.entries);
    const uint64_t data_start = (at_ + align - 1) / align * align;
    for (size_t i = 0; i < offsets.size(); ++i) place(header.tensors[i], offsets[i], align, data_start);
    std::vector<const StoredTensor*> order;
    for (const StoredTensor& tensor : header.tensors) order.push_back(&tensor);
    std::sort(order.begin(), order.end(),
              [](const auto* a, const auto* b) { return a->bytes.data() < b->bytes.data(); });
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i - 1]->bytes.data() + order[i - 1]->bytes.size() > order[i]->bytes.data()) {
        fail(fmt::format("tensors '{}' and '{}' overlap", printable(order[i - 1]->name), printable(order[i]->name)),
             kDamaged);
      }
    }
  }

  void place(StoredTensor& tensor, uint64_t offset, uint64_t align, uint64_t data_start) const {
    const std::string what = fmt::format("tensor '{}'", printable(tensor.name));
    if (tensor.shape.back() % tensor.type->block_values != 0) {
      fail(fmt::format("{} has rows of {} values, not a multiple of {}'s block of {}", what, tensor.shape.back(),
                       tensor.type->name, tensor.type->block_values),
           kDamaged);
    }
    const uint64_t size = checked_bytes(tensor);
    if (size > uint64_t{1} << 60) {
      fail(fmt::format("{} of shape [{}] is too large for any machine", what, fmt::join(tensor.shape, ", ")), kDamaged);
    }
    if (offset % align != 0)
      fail(fmt::format("{} starts at offset {}, not a multiple of {}", what, offset, align), kDamaged);
    uint64_t end = 0;
    if (offset > uint64_t{1} << 60) fail(fmt::format("{} starts at the impossible offset {}", what, offset), kDamaged);
    end = data_start + offset + size;
    if (end > bytes_.size()) {
      fail(fmt::format("the file is truncated: {} ends at byte {} of {}", what, end, bytes_.size()), kDownloadAgain);
    }
    tensor.bytes = bytes_.subspan(data_start + offset, size);
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
  uint64_t at_ = 0;
};

}  // namespace

std::string value_type_name(uint32_t type) {
  static constexpr const char* kNames[] = {"uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                                           "bool",  "string", "array",  "uint64", "int64",  "float64"};
  return type < std::size(kNames) ? kNames[type] : fmt::format("type {}", type);
}

uint64_t value_bytes(uint32_t type) {
  static constexpr uint8_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < std::size(kBytes) ? kBytes[type] : 0;
}

Header parse_header(std::span<const std::byte> bytes, const std::string& path) {
  return Parser(bytes, path).parse();
}

}  // namespace kvc::gguf_detail
