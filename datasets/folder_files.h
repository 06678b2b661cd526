// What lies in a folder of documents.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "harness/api/dataset.h"

namespace kvc {

struct FolderFile {
  std::string id;  // path in the folder, parts joined by "/"
  std::filesystem::path path;
  std::uintmax_t bytes = 0;
};

struct FolderFiles {
  std::vector<FolderFile> texts;    // .txt and .md, sorted by id
  std::filesystem::path questions;  // questions.csv of the folder itself; empty where there is none
  std::vector<std::string> notes;   // what is not read
};

// Looks at names and types, opens no file. `shown` is the folder in messages. Throws Error(kData): the folder cannot be
// read, a name is not fit for a document's id, the questions are in a file of another name or type.
FolderFiles list_folder(const std::filesystem::path& folder, const std::string& shown);

// "a.txt, b.txt, c.txt and 7 more"
std::string some_of(const std::vector<std::string>& names);

}  // namespace kvc
