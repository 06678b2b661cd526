#include "harness/core/json_lines.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <span>
#include <thread>

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

namespace {

struct Line {
  int64_t number;  // from 1
  std::string_view text;
};

// The lines of a file, some megabytes at a time.
class LineReader {
 public:
  explicit LineReader(const std::string& path) : file_(path, std::ios::binary) {
    if (!file_) fail_io("read", path);
    std::error_code unknown;
    const auto size = std::filesystem::file_size(path, unknown);
    if (!unknown) piece_ = std::min<size_t>(piece_, size + 1);
  }

  // The next whole lines that are not empty; none at the end. The views hold until the next call.
  std::vector<Line> next() {
    std::vector<Line> lines;
    while (lines.empty() && (file_ || !text_.empty())) {
      text_.erase(0, used_);
      const size_t unfinished = text_.size();
      read_more();
      // A line may be longer than a piece of the file; the last one may end without a newline.
      while (file_ && text_.find('\n', unfinished) == std::string::npos) read_more();
      used_ = split(lines);
    }
    return lines;
  }

 private:
  void read_more() {
    if (!file_) return;
    const size_t before = text_.size();
    text_.resize(before + piece_);
    file_.read(text_.data() + before, static_cast<std::streamsize>(piece_));
    text_.resize(before + static_cast<size_t>(file_.gcount()));
  }

  // Returns where the unfinished line begins.
  size_t split(std::vector<Line>& lines) {
    size_t begin = 0;
    while (begin < text_.size()) {
      size_t end = text_.find('\n', begin);
      if (end == std::string::npos) {
        if (file_) return begin;
        end = text_.size();
      }
      const std::string_view line(text_.data() + begin, end - begin);
      ++number_;
      if (line.find_first_not_of(" \t\r") != std::string_view::npos) lines.push_back({number_, line});
      begin = std::min(end + 1, text_.size());
    }
    return begin;
  }

  std::ifstream file_;
  size_t piece_ = size_t{16} << 20;
  std::string text_;
  size_t used_ = 0;
  int64_t number_ = 0;
};

std::vector<Json> parsed(std::span<const Line> lines) {
  std::vector<Json> values;
  values.reserve(lines.size());
  for (const Line& line : lines) values.push_back(Json::parse(line.text, nullptr, false));
  return values;
}

}  // namespace

std::vector<int64_t> for_each_json_line(const std::string& path, const std::function<void(Json&&)>& take) {
  std::vector<int64_t> broken;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return broken;
  LineReader reader(path);
  const size_t cores = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 16);
  for (std::vector<Line> lines = reader.next(); !lines.empty(); lines = reader.next()) {
    const size_t part = (lines.size() + cores - 1) / cores;
    constexpr size_t kFewLines = 64;  // not worth a thread
    std::vector<std::future<std::vector<Json>>> parts;
    for (size_t begin = 0; begin < lines.size(); begin += part) {
      const std::span<const Line> own(lines.data() + begin, std::min(part, lines.size() - begin));
      parts.push_back(std::async(lines.size() < kFewLines ? std::launch::deferred : std::launch::async,
                                 [own] { return parsed(own); }));
    }
    auto line = lines.begin();
    for (auto& own : parts) {
      for (Json& value : own.get()) {
        if (value.is_discarded()) {
          broken.push_back(line->number);
        } else {
          take(std::move(value));
        }
        ++line;
      }
    }
  }
  return broken;
}

JsonLines read_json_lines(const std::string& path) {
  JsonLines lines;
  lines.broken_lines = for_each_json_line(path, [&](Json&& value) { lines.values.push_back(std::move(value)); });
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
