// The flips of a results folder: questions that the full cache answers right and a compact cache does not.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/sweep/record.h"

namespace kvc {

struct LostAnswer {
  const Record* full;  // of full_cache
  const Record* compact;
  size_t full_answer, compact_answer;  // indices into the records' answers

  const std::string& document() const { return compact->document_id; }
  std::string question() const;
};

// Empty: all.
struct LostAnswerFilter {
  std::string question, document, method, target;  // ids; name of a method; "0.1" or "512 entries"
};

struct LostAnswers {
  std::vector<LostAnswer> list;    // by cell, document, question
  int64_t n_compared = 0;          // answers that the full cache has right
  std::vector<std::string> notes;  // what was left aside, and why
};

// `records` must outlive the result. Records that cannot be judged are left aside, as are those of tasks that say
// nothing about right and wrong, of no_context unless it is asked for, and of texts that are compacted while they are
// written: there is no cache of the document to look into. Throws Error(kUsage) when the filter names a question,
// document, method or target that no record has, Error(kData) when no record is of full_cache.
LostAnswers find_lost_answers(const std::vector<Record>& records, const LostAnswerFilter& filter);

// The first `limit` of them, in turn from each cell: a cell with many flips does not crowd out the others. All when
// limit is 0.
std::vector<LostAnswer> chosen_answers(const std::vector<LostAnswer>& flips, int64_t limit);

}  // namespace kvc
