// Reading QuALITY's released JSON lines (v1.0.1, html-stripped): shared by the data sets that use its articles.
//
// One line is one set of questions about one article: article_id, title, article, questions[{question,
// question_unique_id, options[], gold_label (from 1), difficult (0 or 1, may be absent)}]; other fields are not read.
// Several lines may carry the same article; they become one document.
#pragma once

#include <string>
#include <vector>

#include "harness/api/dataset.h"

namespace kvc {

// The articles shipped with the source.
inline constexpr const char* kQualitySample = "datasets/samples/quality.jsonl";

// All documents of the file in the order of their first lines, all questions checked. A relative path is looked for in
// the working directory, then in the source folder. Throws Error(kData) that lists all problems of the file (at most
// 20) with line and field.
std::vector<Document> read_quality_file(const std::string& path);

// The documents of these ids, in the order of `ids`; all of them when it is empty. Throws Error(kData) naming every id
// that is not there.
std::vector<Document> select_documents(std::vector<Document> documents, const std::vector<std::string>& ids,
                                       const std::string& path);

}  // namespace kvc
