#include "harness/head_budgets/curves_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "harness/core/error.h"
#include "harness/core/interrupt.h"
#include "harness/core/json_lines.h"
#include "harness/core/text_file.h"

namespace kvc {
namespace {

constexpr const char* kFormat = "kvcompact.head_curves.v1";

// Whether all of a file is the beginning of the line that this program writes first, with these settings or others.
bool is_torn_head(const std::string& path, const std::string& head) {
  const std::string text = read_text_file(path);
  const size_t end = text.find('\n');
  if (end != std::string::npos && text.find_first_not_of(" \t\r\n", end) != std::string::npos) return false;
  const std::string line = text.substr(0, end);
  const std::string marker = head.substr(0, head.find(kFormat) + std::strlen(kFormat) + 1);  // with the closing quote
  return !line.empty() && (head.starts_with(line) || line.starts_with(marker));
}

}  // namespace

CurvesFile::CurvesFile(std::string path, const Json& settings) : path_(std::move(path)) {
  const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  std::error_code ignored;
  if (!folder.empty()) std::filesystem::create_directories(folder, ignored);
  lock_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) refuse(fmt::format("cannot write: {}", std::strerror(errno)), "choose another place (--out)");
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    refuse("another process is measuring into this file", "wait until it is done, or choose another --out");
  }
  try {
    read(settings);
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

CurvesFile::~CurvesFile() {
  ::close(lock_);
}

Json CurvesFile::find(const std::string& kind, const std::string& key) const {
  const auto found = entries_.find({kind, key});
  return found == entries_.end() ? Json() : found->second;
}

void CurvesFile::keep(const std::string& kind, const std::string& key, const Json& value) {
  const UninterruptedWrite guard;
  append_json_line(path_, {{"kind", kind}, {"key", key}, {"value", value}});
  entries_[{kind, key}] = value;
}

void CurvesFile::refuse(const std::string& fact, const std::string& mend) const {
  throw Error(ErrorKind::kData, fact, path_, mend);
}

void CurvesFile::read(const Json& settings) {
  const JsonLines lines = read_json_lines(path_);
  const Json first = {{"format", kFormat}, {"settings", settings}};
  if (lines.values.empty()) {
    if (!lines.broken_lines.empty() && !is_torn_head(path_, first.dump()))
      refuse("this is not a file of head curves", "choose another --out");
    begin_anew(first);
    return;
  }
  const Json& head = lines.values.front();
  if (!head.is_object() || head.value("format", Json()) != kFormat || !head.contains("settings") ||
      !head.at("settings").is_object()) {
    refuse("this is not a file of head curves", "choose another --out");
  }
  check_settings(head.at("settings"), settings);
  for (size_t i = 1; i < lines.values.size(); ++i) {
    const Json& line = lines.values[i];
    if (!line.is_object() || !line.value("kind", Json()).is_string() || !line.value("key", Json()).is_string() ||
        !line.contains("value")) {
      refuse(fmt::format("entry {} is none of head curves", i + 1), "delete the file; the command measures anew");
    }
    entries_[{line.at("kind"), line.at("key")}] = line.at("value");
  }
}

void CurvesFile::begin_anew(const Json& head) const {
  const UninterruptedWrite guard;
  if (::ftruncate(lock_, 0) != 0)
    refuse(fmt::format("cannot write: {}", std::strerror(errno)), "choose another place (--out)");
  append_json_line(path_, head);
}

void CurvesFile::check_settings(const Json& measured, const Json& now) const {
  for (const auto& [name, value] : now.items()) {
    const Json was = measured.value(name, Json());
    if (was == value) continue;
    refuse(fmt::format("{} is {} now, but was {} when this file was measured", name, value.dump(), was.dump()),
           "choose another --out, or delete this file to measure anew");
  }
}

}  // namespace kvc
