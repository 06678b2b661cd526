#include "harness/model/formats/tensor_file.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/core/error.h"
#include "harness/files/safetensors.h"

namespace kvc {
namespace {

constexpr std::pair<const char*, at::ScalarType> kTypes[] = {
    {"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}, {"I64", at::kLong}};

at::ScalarType scalar_type(std::string_view name) {
  for (const auto& [known, type] : kTypes) {
    if (name == known) return type;
  }
  throw Error(ErrorKind::kInternal, fmt::format("tensors of {} are not read", name), "", "");
}

std::string type_name(const std::string& tensor, at::ScalarType type) {
  for (const auto& [name, known] : kTypes) {
    if (type == known) return name;
  }
  throw Error(ErrorKind::kInternal, fmt::format("tensor '{}' is of {}", tensor, at::toString(type)), "",
              "store float32, float16, bfloat16 or int64");
}

// A file under a temporary name in the same folder, renamed once complete, removed otherwise.
class NewFile {
 public:
  explicit NewFile(std::string path)
      : path_(std::move(path)), temporary_(fmt::format("{}.{}.part", path_, ::getpid())) {
    file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file_ < 0) fail();
  }
  ~NewFile() {
    if (file_ < 0) return;
    ::close(file_);
    ::unlink(temporary_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(const void* data, size_t size) {
    const auto* at = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t n = ::write(file_, at, size);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail();
      at += n;
      size -= static_cast<size_t>(n);
    }
  }
  void finish() {
    if (::fsync(file_) != 0 || std::rename(temporary_.c_str(), path_.c_str()) != 0) fail();
    ::close(std::exchange(file_, -1));
  }

 private:
  [[noreturn]] void fail() const {
    throw Error(ErrorKind::kData, fmt::format("cannot write the file: {}", std::strerror(errno)), path_,
                "name a file in a folder that exists, that you may write to and that has room");
  }

  std::string path_, temporary_;
  int file_ = -1;
};

}  // namespace

TensorFile read_tensor_file(const std::string& path) {
  const MappedFile mapped(path, "name a safetensors file");
  SafetensorsExtra extra;
  extra.integers = true;
  TensorFile file;
  for (const StoredTensor& stored : parse_safetensors(mapped.bytes(), path, &extra)) {
    at::Tensor tensor = at::empty(stored.shape, at::TensorOptions(scalar_type(stored.type->name)));
    std::memcpy(tensor.mutable_data_ptr(), stored.bytes.data(), stored.bytes.size());
    file.tensors.emplace(stored.name, std::move(tensor));
  }
  file.metadata = std::move(extra.metadata);
  return file;
}

void write_tensor_file(const std::string& path, const TensorFile& file) {
  Json header = Json::object();
  if (!file.metadata.empty()) header["__metadata__"] = file.metadata;
  size_t end = 0;
  for (const auto& [name, tensor] : file.tensors) {
    if (!tensor.defined() || tensor.numel() == 0 || tensor.dim() < 1 || tensor.dim() > 4) {
      throw Error(ErrorKind::kInternal, fmt::format("tensor '{}' is empty or has no dimensions", name), path, "");
    }
    const size_t begin = std::exchange(end, end + tensor.nbytes());
    header[name] = Json{{"dtype", type_name(name, tensor.scalar_type())},
                        {"shape", tensor.sizes().vec()},
                        {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the numbers begin at a multiple of 8 bytes
  const auto size = static_cast<std::uint64_t>(text.size());
  NewFile out(path);
  out.write(&size, sizeof size);
  out.write(text.data(), text.size());
  for (const auto& [name, tensor] : file.tensors) {
    const at::Tensor flat = tensor.cpu().contiguous();
    out.write(flat.const_data_ptr(), flat.nbytes());
  }
  out.finish();
}

}  // namespace kvc
