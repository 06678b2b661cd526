#include "datasets/folder_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "datasets/data_file.h"
#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/core/utf8.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

constexpr int kDeepest = 32;                // folders in folders
constexpr size_t kMostEntries = 1'000'000;  // that are looked at
constexpr size_t kShownNames = 5;
constexpr const char* kQuestions = "questions.csv";

// Valid UTF-8 without control characters: an id is printed and written to JSON.
bool is_clean(const std::string& name) {
  for (size_t i = 0; i < name.size();) {
    const size_t length = utf8_length(name, i);
    const auto byte = static_cast<unsigned char>(name[i]);
    if (length == 0 || byte < 0x20 || byte == 0x7F) return false;
    i += length;
  }
  return true;
}

class Lister {
 public:
  Lister(const fs::path& folder, const std::string& shown) : folder_(folder), shown_(shown) {}

  FolderFiles run() {
    std::error_code error;
    fs::recursive_directory_iterator entries(folder_, error);  // does not follow links to folders
    size_t seen = 0;
    while (!error && entries != fs::recursive_directory_iterator()) {
      if (++seen > kMostEntries) {
        throw Error(ErrorKind::kData, fmt::format("the folder has more than {} files", kMostEntries), shown_,
                    "name the folder that holds just the documents");
      }
      if (!look_at(*entries, entries.depth())) entries.disable_recursion_pending();
      entries.increment(error);
    }
    if (error) {
      throw Error(ErrorKind::kData, fmt::format("cannot read the folder: {}", error.message()), shown_,
                  "check the permissions of the folder and of those in it");
    }
    throw_if_any(ErrorKind::kData, problems_, shown_);
    std::sort(files_.texts.begin(), files_.texts.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
    tell_left_out();
    return std::move(files_);
  }

 private:
  // False for a folder that is not gone into.
  bool look_at(const fs::directory_entry& entry, int depth) {
    const std::string id = entry.path().lexically_relative(folder_).generic_string();
    const std::string name = entry.path().filename().string();
    std::error_code error;
    const fs::file_status status = entry.symlink_status(error);
    if (name.starts_with('.')) {
      hidden_.push_back(printable(id));
      return false;
    }
    if (depth == 0 && lower_ascii(name).starts_with("questions.")) {
      look_at_questions(entry.path(), name, status);
      return false;
    }
    if (fs::is_symlink(status)) {
      links_.push_back(printable(id));
    } else if (fs::is_directory(status)) {
      if (depth < kDeepest) return true;
      deep_.push_back(printable(id));
    } else if (const std::string type = lower_ascii(entry.path().extension().string());
               !fs::is_regular_file(status) || (type != ".txt" && type != ".md")) {
      others_.push_back(printable(id));
    } else if (!is_clean(id)) {
      problems_.push_back({"the file's name has control characters or is not UTF-8",
                           fmt::format("{}/{}", shown_, printable(id)), "rename the file"});
    } else {
      files_.texts.push_back({id, entry.path(), entry.file_size(error)});
    }
    return false;
  }

  // A file that is meant to hold the questions and is not read would have the model write its own without a word.
  void look_at_questions(const fs::path& path, const std::string& name, const fs::file_status& status) {
    const std::string where = fmt::format("{}/{}", shown_, printable(name));
    if (name != kQuestions) {
      problems_.push_back(
          {"questions are read from 'questions.csv' only", where, "save or rename it as questions.csv"});
    } else if (!fs::is_regular_file(status)) {
      problems_.push_back({"'questions.csv' must be a file; got a folder, a symbolic link or a device", where,
                           "put the file itself here"});
    } else {
      files_.questions = path;
    }
  }

  void tell_left_out() {
    const auto tell = [&](const std::vector<std::string>& names, const char* one, const char* many) {
      if (names.empty()) return;
      files_.notes.push_back(fmt::format("{} {}: {}", names.size(), names.size() == 1 ? one : many, some_of(names)));
    };
    tell(others_, "file is not read, because it is not a plain .txt or .md file",
         "files are not read, because they are not plain .txt or .md files");
    tell(hidden_, "hidden file or folder is not read", "hidden files or folders are not read");
    tell(links_, "symbolic link is not followed", "symbolic links are not followed");
    tell(deep_, "folder lies too deep and is not read", "folders lie too deep and are not read");
  }

  const fs::path& folder_;
  const std::string& shown_;
  FolderFiles files_;
  std::vector<Problem> problems_;
  std::vector<std::string> hidden_, links_, deep_, others_;
};

}  // namespace

FolderFiles list_folder(const fs::path& folder, const std::string& shown) {
  return Lister(folder, shown).run();
}

std::string some_of(const std::vector<std::string>& names) {
  std::vector<std::string> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  const size_t n = std::min(kShownNames, sorted.size());
  const std::string list =
      fmt::format("{}", fmt::join(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(n), ", "));
  return sorted.size() > n ? fmt::format("{} and {} more", list, sorted.size() - n) : list;
}

}  // namespace kvc
