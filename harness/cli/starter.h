// What kvc new writes, and which data set reads a user's file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/text/tokenizer/tokenizer.h"

namespace kvc {

struct FoundData {
  std::string dataset;  // name of the data set that reads it
  Json options;         // of the data set: its file under `path`, or `qa_path`; {} for a data set's own default
  int64_t documents = 0;
  int64_t questions = 0;
  std::vector<std::string> tasks;  // that can ask at least one of its questions, in the order of usefulness
  int64_t written_by_model = 0;    // of the questions
  std::vector<std::string> notes;  // Dataset::notes()
  int64_t shortest_tokens = 0;     // of the shortest document
  Json preferred_task;             // Dataset::preferred_task()

  // "3 documents, 12 questions", and how many of them the model writes.
  std::string counts() const;
};

// `data` is the name of a data set, a file that one of them reads, or a folder of texts. Lengths are counted by
// `tokenizer`, in words where there is none. Throws Error(kData): no such file, or no data set reads it (each one's
// reason is given); what is wrong in a folder.
FoundData find_data(const std::string& data, const Tokenizer* tokenizer);

// A commented sweep file that is measured in minutes on a small model.
std::string starter_sweep(const std::string& name, const std::string& model, const FoundData& data);

}  // namespace kvc
