// A folder of texts as a data set: every .txt and .md file is a document, questions.csv has the questions. Without that
// file the model writes questions about each document when it is read. The form is in datasets/README.md.
#pragma once

#include <string>
#include <vector>

#include "harness/api/dataset.h"

namespace kvc {

struct DocumentFolder {
  std::vector<Document> documents;  // sorted by id: the path in the folder, "2024/report.txt"
  std::vector<std::string> notes;   // what is not read, a sentence each
};

// Folders in the folder are read too; hidden files and folders are not, symbolic links are not followed. At most 64 MiB
// a document, 1 GiB of documents, 64 MiB of questions.csv. Throws Error(kData) with all problems, each with its file,
// line and column.
DocumentFolder read_document_folder(const std::string& path);

// {file, content_hash}: of documents and questions as they were read, wherever the folder lies.
Json document_folder_identity(const std::string& path);

inline constexpr int64_t kQuestionsByModel = 3;  // that the model writes about a document where there are none

}  // namespace kvc
