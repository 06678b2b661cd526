// What budget rules that read a file share.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <string>

#include "harness/core/error.h"

namespace kvc {

// A relative path is looked for in the working directory, then in the source folder, as data sets' are.
inline std::string found_file(const std::string& path) {
  std::error_code ignored;
  const std::filesystem::path in_source = std::filesystem::path(KVC_SOURCE_DIR) / path;
  const bool here = std::filesystem::exists(path, ignored);
  return !here && std::filesystem::exists(in_source, ignored) ? in_source.string() : path;
}

// Throws Error(kData) when a cell names another content than the file has now. `named`: "" where it names none.
inline void check_content(const std::string& path, const std::string& hash, const std::string& named) {
  if (named.empty() || named == hash) return;
  throw Error(ErrorKind::kData, fmt::format("the file is {} now, not {}", hash, named), path,
              "bring the file back, or leave content_hash out");
}

// How to mend a file that was made for another model. `by`: what kvc budget is asked to find it by, e.g. " --by gates".
inline std::string other_model_mend(const std::string& by) {
  return fmt::format("take this model's file, or make one by kvc budget{} --model MODEL --dataset DATASET --out FILE",
                     by);
}

}  // namespace kvc
