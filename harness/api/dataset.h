// Documents with questions. A data set parses and checks; it does not know how a question is asked.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/core/registry.h"

namespace kvc {

struct Question {
  std::string id;                          // unique within the data set
  std::string text;                        // of a question that is still to be written: the request to write one
  std::vector<std::string> options;        // multiple choice; empty for a free answer
  std::optional<int64_t> gold_option;      // index into options, from 0
  std::string gold_answer;                 // free answer; empty for multiple choice
  std::vector<std::string> other_answers;  // beside gold_answer, each as right as it; any one is enough
  std::string answer_prefix;      // first words of the answer, given to the model ("The secret code of the castle is")
  bool written_by_model = false;  // the model writes it when the document is read; it has no gold
  Json extra = Json::object();    // what a report may group by, e.g. {"difficult": true} or {"depth_fraction": 0.5}
};

struct Document {
  std::string id;  // unique within the data set
  std::string title;
  std::string text;
  std::vector<Question> questions;
};

struct DatasetRequest {
  std::uint64_t seed = 0;
  // Tokens of a text in the model at hand, for data sets that build a text of a given length.
  std::function<int64_t(std::string_view)> count_tokens;
};

class Dataset {
 public:
  virtual ~Dataset() = default;
  // Throws Error(kData) naming file, line and field. Ids are unique, golds are in range, no text is empty.
  virtual std::vector<Document> load(const DatasetRequest& request) const = 0;
  // {file, content_hash, ...}: what the documents depend on besides options and seed.
  virtual Json identity() const = 0;
  // What a user should know of the data though nothing is wrong with it, a sentence each: files that are not read, for
  // example. Throws as load().
  virtual std::vector<std::string> notes() const { return {}; }
  // Keys by which an entry of its file is recognised, a list for each of its forms; used to say what is wrong with a
  // file that no data set reads.
  virtual std::vector<std::vector<std::string>> file_keys() const { return {}; }
  // The task that its questions are made for, as a sweep file names it; null: whatever accepts them.
  virtual Json preferred_task() const { return nullptr; }
};

#define KVC_REGISTER_DATASET(Class, name, source) KVC_REGISTER(::kvc::Dataset, Class, name, source)

}  // namespace kvc
