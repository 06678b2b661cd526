#include "harness/files/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/files/foreign_file.h"

namespace kvc {
namespace {

using nlohmann::json;

constexpr uint64_t kMostHeaderBytes = 100'000'000;  // as in the reference reader
constexpr const char* kFetchAgain = "fetch or make the file again";
constexpr const char* kDamaged = "the file is damaged or made by a faulty converter: fetch or make it again";

[[noreturn]] void refuse(const std::string& fact, const std::string& where, const std::string& mend = kDamaged) {
  throw Error(ErrorKind::kData, fact, where, mend);
}

struct Entry {
  std::string name, type;
  std::vector<uint64_t> shape, offsets;
  std::set<std::string> seen;  // fields
};

// Takes the header as it is read: {"__metadata__": {text: text}, name:
// {"dtype": ., "shape": [], "data_offsets": []}}. Anything else is an error at
// once, so that nothing deep or long is ever built.
class HeaderReader final : public nlohmann::json_sax<json> {
 public:
  explicit HeaderReader(const std::string& path) : path_(path) {}
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override { return unexpected(fmt::format("{}", value)); }
  bool number_float(number_float_t, const string_t& text) override { return unexpected(printable(text)); }
  bool binary(binary_t&) override { return unexpected("binary data"); }
  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kShape && place_ != Place::kOffsets) return unexpected(fmt::format("{}", value));
    std::vector<uint64_t>& list = place_ == Place::kShape ? entries.back().shape : entries.back().offsets;
    if (list.size() == 8) refuse(fmt::format("{} has more than 8 numbers in '{}'", tensor(), key_), path_);
    list.push_back(value);
    return true;
  }
  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      metadata[key_] = std::move(value);
      return true;
    }
    if (place_ != Place::kTensor || key_ != "dtype") return unexpected(fmt::format("'{}'", printable(value)));
    entries.back().type = std::move(value);
    return true;
  }
  bool start_object(size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop && key_ == "__metadata__") {
      place_ = Place::kMetadata;
    } else if (place_ == Place::kTop) {
      place_ = Place::kTensor;
      entries.push_back({key_, "", {}, {}, {}});
    } else {
      unexpected("an object");
    }
    return true;
  }
  bool key(string_t& value) override {
    key_ = std::move(value);
    if (place_ == Place::kTop && key_.empty()) refuse("a tensor has no name", path_);
    if (place_ == Place::kTop && !names_.insert(key_).second) {
      refuse(fmt::format("two tensors are named '{}'", printable(key_)), path_);
    }
    if (place_ != Place::kTensor) return true;
    if (key_ != "dtype" && key_ != "shape" && key_ != "data_offsets") {
      refuse(fmt::format("{} has the unknown field '{}'", tensor(), printable(key_)), path_);
    }
    if (!entries.back().seen.insert(key_).second) refuse(fmt::format("{} has two '{}'", tensor(), key_), path_);
    return true;
  }
  bool end_object() override {
    if (place_ == Place::kTensor) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (!entries.back().seen.contains(field)) refuse(fmt::format("{} has no '{}'", tensor(), field), path_);
      }
    }
    place_ = place_ == Place::kTop ? Place::kStart : Place::kTop;
    return true;
  }
  bool start_array(size_t) override {
    if (place_ != Place::kTensor || key_ == "dtype") return unexpected("a list");
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    return true;
  }
  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    refuse(fmt::format("the header is not JSON at its byte {}, {}", position, json_fault(error.what())), path_);
  }

 private:
  enum class Place : std::uint8_t { kStart, kTop, kMetadata, kTensor, kShape, kOffsets };

  std::string tensor() const { return fmt::format("tensor '{}'", printable(entries.back().name)); }
  bool unexpected(const std::string& what) const {
    refuse(fmt::format("the header has {} where {} belongs, after the key '{}'", what,
                       place_ == Place::kShape || place_ == Place::kOffsets ? "a number from 0"
                       : place_ == Place::kTensor                           ? "dtype, shape or data_offsets"
                       : place_ == Place::kMetadata                         ? "a text"
                                                                            : "an object",
                       printable(key_)),
           path_);
  }

  const std::string& path_;
  Place place_ = Place::kStart;
  std::string key_;
  std::set<std::string> names_;
};

constexpr GgmlType kInteger = {27, "I64", 1, 8, nullptr};

const GgmlType* number_type(const std::string& name, bool integers) {
  if (integers && name == "I64") return &kInteger;
  if (name == "F32") return find_ggml_type(0);
  if (name == "F16") return find_ggml_type(1);
  if (name == "BF16") return find_ggml_type(30);
  return nullptr;
}

// Checks all of an entry that does not depend on its neighbours.
StoredTensor checked(const Entry& entry, std::span<const std::byte> data, const std::string& path, bool integers) {
  const std::string what = fmt::format("tensor '{}'", printable(entry.name));
  StoredTensor tensor{entry.name, number_type(entry.type, integers), {}, {}};
  if (tensor.type == nullptr) {
    refuse(fmt::format("{} is stored as {}, which is not supported", what, printable(entry.type)), path,
           integers ? "store it as F32, F16, BF16 or I64" : "take the model in F32, F16 or BF16, or a GGUF file of it");
  }
  if (entry.shape.empty() || entry.shape.size() > 4) {
    refuse(fmt::format("{} has {} dimensions; 1 to 4 are possible", what, entry.shape.size()), path);
  }
  auto size = static_cast<uint64_t>(tensor.type->block_bytes);
  for (const uint64_t dimension : entry.shape) {
    if (dimension < 1 || dimension > uint64_t{1} << 48U || __builtin_mul_overflow(size, dimension, &size)) {
      refuse(fmt::format("{} has the impossible shape [{}]", what, fmt::join(entry.shape, ", ")), path);
    }
    tensor.shape.push_back(static_cast<int64_t>(dimension));
  }
  if (entry.offsets.size() != 2 || entry.offsets[0] > entry.offsets[1]) {
    refuse(fmt::format("{} has the data offsets [{}]; a begin and an end belong there", what,
                       fmt::join(entry.offsets, ", ")),
           path);
  }
  if (entry.offsets[1] > data.size()) {
    refuse(fmt::format("the file is truncated: {} ends at byte {} of {} behind the header", what, entry.offsets[1],
                       data.size()),
           path, kFetchAgain);
  }
  if (entry.offsets[1] - entry.offsets[0] != size) {
    refuse(fmt::format("{} of shape [{}] in {} takes {} bytes; its offsets leave {}", what,
                       fmt::join(entry.shape, ", "), entry.type, size, entry.offsets[1] - entry.offsets[0]),
           path);
  }
  tensor.bytes = data.subspan(entry.offsets[0], size);
  return tensor;
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> header_of(std::span<const std::byte> bytes, const std::string& path) {
  refuse_foreign_file(as_text(bytes), path, "safetensors file");
  if (as_text(bytes).starts_with("GGUF")) {
    refuse("this is not a safetensors file but a GGUF file", path, "name the GGUF file itself as the model");
  }
  if (bytes.size() < 8) refuse(fmt::format("the file has {} bytes, too few for a header", bytes.size()), path);
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof size);
  if (size > kMostHeaderBytes) {
    refuse(fmt::format("the header claims {} bytes; {} are possible", size, kMostHeaderBytes), path);
  }
  if (size > bytes.size() - 8) {
    refuse(fmt::format("the file is truncated: a header of {} bytes in a file of {}", size, bytes.size()), path,
           kFetchAgain);
  }
  return bytes.subspan(8, size);
}

}  // namespace

std::vector<StoredTensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& path,
                                            SafetensorsExtra* extra) {
  const std::span<const std::byte> header = header_of(bytes, path);
  if (header.empty() || header.front() != std::byte{'{'}) refuse("the header is not a JSON object", path);
  HeaderReader reader(path);
  json::sax_parse(as_text(header), &reader);
  const std::span<const std::byte> data = bytes.subspan(8 + header.size());
  std::vector<StoredTensor> tensors;
  for (const Entry& entry : reader.entries) {
    tensors.push_back(checked(entry, data, path, extra != nullptr && extra->integers));
  }
  if (extra != nullptr) extra->metadata = std::move(reader.metadata);
  std::sort(tensors.begin(), tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.bytes.data() < b.bytes.data(); });
  const std::byte* end = data.data();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string what = printable(tensors[i].name);
    if (i > 0 && tensors[i].bytes.data() < end) {
      refuse(fmt::format("tensors '{}' and '{}' overlap", printable(tensors[i - 1].name), what), path);
    }
    if (tensors[i].bytes.data() != end) {
      refuse(fmt::format("{} bytes before tensor '{}' belong to none", tensors[i].bytes.data() - end, what), path);
    }
    end = tensors[i].bytes.data() + tensors[i].bytes.size();
  }
  if (end != data.data() + data.size()) {
    refuse(fmt::format("the last {} bytes of the file belong to no tensor", data.data() + data.size() - end), path);
  }
  return tensors;
}

}  // namespace kvc
