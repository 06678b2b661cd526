// What the readers of LongBench, InfiniteBench and LooGLE share.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "datasets/data_file.h"

namespace kvc {

// Collects questions into documents: questions about one and the same text are one document, which is read once. Its id
// is that of its first question.
class DocumentsByText {
 public:
  void add(const std::string& id, const std::string& title, const std::string& text, Question question);
  // Of the questions added so far, in their order; leaves nothing behind.
  std::vector<Document> take() { return std::move(documents_); }
  size_t n_questions() const { return n_questions_; }

 private:
  std::vector<Document> documents_;
  std::map<std::string, size_t> index_of_;  // hash of a text -> document
  size_t n_questions_ = 0;
};

// `extra` of a question that the task published_score asks.
Json score_extra(const std::string& subset, const std::string& rule, const std::vector<std::string>& references,
                 int64_t max_new_tokens);

// Text, or "" where the field is missing, null or empty; a problem where it is something else.
std::string optional_text(DataReader& in, const Json& object, const std::string& name);

// The texts of a field that is a text, a number or a list of them, as they are written: the indentation of a line of
// code is part of the answer. Blank ones are left out; a problem where the field is missing or nothing is left.
std::vector<std::string> texts_of_field(DataReader& in, const Json& object, const std::string& name);

}  // namespace kvc
