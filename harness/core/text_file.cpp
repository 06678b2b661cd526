#include "harness/core/text_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "harness/core/error.h"

namespace kvc {
namespace {

constexpr const char* kMend = "check the path and its permissions";

struct Close {
  void operator()(std::FILE* file) const {
    if (file != stdin) std::fclose(file);
  }
};

}  // namespace

std::string read_text_file(const std::string& path, std::size_t max_bytes) {
  const std::unique_ptr<std::FILE, Close> file(path == "-" ? stdin : std::fopen(path.c_str(), "rb"));
  if (!file) throw Error(ErrorKind::kData, fmt::format("cannot read the file: {}", std::strerror(errno)), path, kMend);
  std::string text;
  char block[1 << 16];
  for (std::size_t n; (n = std::fread(block, 1, sizeof block, file.get())) > 0;) {
    text.append(block, n);
    if (text.size() > max_bytes) {
      throw Error(ErrorKind::kData, fmt::format("the file is larger than {} bytes", max_bytes), path,
                  "is this the right file?");
    }
  }
  if (std::ferror(file.get()) != 0) {
    throw Error(ErrorKind::kData, fmt::format("cannot read the file: {}", std::strerror(errno)), path, kMend);
  }
  return text;
}

std::string last_name(const std::string& path) {
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  return (normal.has_filename() ? normal.filename() : normal.parent_path().filename()).string();
}

}  // namespace kvc
