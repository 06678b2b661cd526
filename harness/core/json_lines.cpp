#include "harness/core/json_lines.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace kvc {
namespace {

[[noreturn]] void fail_io(const std::string& action, const std::string& path) {
  const std::string reason = std::strerror(errno);
  throw Error(ErrorKind::kData, fmt::format("cannot {}: {}", action, reason), path,
              "free the disk or mend the permissions, then run the same command again");
}

void make_parent(const std::string& path) {
  const auto parent = std::filesystem::path(path).parent_path();
  if (parent.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(parent, error);
  if (error) {
    throw Error(ErrorKind::kData, "cannot create the folder: " + error.message(), parent.string(),
                "choose a folder you may write to (--results)");
  }
}

class File {
 public:
  File(const std::string& path, int flags) : path_(path), fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (fd_ < 0) fail_io("open the file for writing", path);
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int fd() const { return fd_; }

  void write_all(std::string_view text) {
    struct stat before {};
    if (::fstat(fd_, &before) != 0) fail_io("read the file's size", path_);
    size_t done = 0;
    while (done < text.size()) {
      const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        const int reason = errno;
        // Best effort: a torn line is tolerated by the reader anyway.
        if (::ftruncate(fd_, before.st_size) != 0) errno = reason;
        errno = reason;
        fail_io("write", path_);
      }
      done += static_cast<size_t>(n);
    }
    if (::fsync(fd_) != 0 && errno != EINVAL && errno != EROFS) fail_io("sync", path_);
  }

 private:
  std::string path_;
  int fd_;
};

bool ends_in_torn_line(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file || file.tellg() <= 0) return false;
  file.seekg(-1, std::ios::end);
  return file.get() != '\n';
}

}  // namespace

void append_json_line(const std::string& path, const Json& value) {
  make_parent(path);
  // A model may emit bytes that are no UTF-8; they are stored as U+FFFD.
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  const std::string line = (ends_in_torn_line(path) ? "\n" : "") + text + "\n";
  File(path, O_WRONLY | O_APPEND | O_CREAT).write_all(line);
}

JsonLines read_json_lines(const std::string& path) {
  JsonLines lines;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return lines;
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_io("read", path);
  std::string text;
  for (int64_t number = 1; std::getline(file, text); ++number) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    Json value = Json::parse(text, nullptr, false);
    if (value.is_discarded()) {
      lines.broken_lines.push_back(number);
    } else {
      lines.values.push_back(std::move(value));
    }
  }
  return lines;
}

void write_file_atomically(const std::string& path, std::string_view text) {
  make_parent(path);
  const std::string beside = fmt::format("{}.{}.part", path, ::getpid());
  try {
    File(beside, O_WRONLY | O_CREAT | O_TRUNC).write_all(text);
  } catch (...) {
    ::unlink(beside.c_str());
    throw;
  }
  if (::rename(beside.c_str(), path.c_str()) != 0) {
    const int reason = errno;
    ::unlink(beside.c_str());
    errno = reason;
    fail_io("rename the finished file into place", path);
  }
}

}  // namespace kvc
