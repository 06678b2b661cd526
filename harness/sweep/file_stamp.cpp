#include "harness/sweep/file_stamp.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

// Links are followed: a model hub's cache keeps links to the files.
bool stamp_of(const fs::path& file, Json& list, std::int64_t& bytes) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) return false;
  if (!S_ISREG(info.st_mode)) return true;
  bytes += info.st_size;
  list.push_back({file.filename().string(), info.st_size, info.st_ino, info.st_mtim.tv_sec, info.st_mtim.tv_nsec,
                  info.st_ctim.tv_sec, info.st_ctim.tv_nsec});
  return true;
}

}  // namespace

Json file_stamp(const std::string& path) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error) return nullptr;
  std::vector<fs::path> files = {real};
  if (fs::is_directory(real, error)) {
    files.clear();
    for (fs::directory_iterator it(real, error), end; !error && it != end; it.increment(error)) {
      files.push_back(it->path());
    }
    if (error) return nullptr;
    std::sort(files.begin(), files.end());
  }
  Json list = Json::array();
  std::int64_t bytes = 0;
  for (const fs::path& file : files) {
    if (!stamp_of(file, list, bytes)) return nullptr;
  }
  if (list.empty()) return nullptr;
  return Json{{"path", real.string()}, {"bytes", bytes}, {"files", stable_hash(canonical_json(list))}};
}

}  // namespace kvc
