// Results of Attention Matching's reference implementation (arXiv:2602.16284, github.com/adamzweiger/compaction) as
// records of this program.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "harness/sweep/record.h"

namespace kvc {

struct ImportSettings {
  int64_t max_new_tokens = 2048;  // its default; an answer of as many tokens was cut off. The files do not say it
  std::string data;               // file with right answers, for stored answers without them; "" for none
};

struct Imported {
  std::vector<Record> records;
  int64_t files = 0, answers = 0;
  int64_t judged_alike = 0, judged_otherwise = 0;  // by the reference and by paper_choice()
  std::vector<std::string> warnings;
};

// Every *.json of the folder, of one of two layouts: what its run_qa_evaluation writes (`config`, `results`), and its
// stored answers of full contexts (`generations`), whose right answers are taken from settings.data.
//
// A result (one method on one article) is one record of the task multiple_choice: the raw answers are kept, and judged
// here again. Articles and questions are named as by our data sets quality and longhealth. Of `known`, the cells that
// the target folder has, a model, data set and task of the same names are taken over as they are, so that both stand in
// one table. Methods are "reference_NAME"; "original" and "no_context" are full_cache and no_context unless the folder
// has those of its own. A method run again on an article counts as another seed,
// here in the order of the files; keep_new() gives seeds that fit a folder's.
//
// Throws Error(kData): no such folder, no JSON file in it, a file of another layout, named with what it lacks, a value
// that cannot be (a negative time), or a question that a result has twice.
Imported import_am(const std::string& folder, const std::vector<Json>& known, const ImportSettings& settings);

// Of `records`, those that are not among `present`, the target folder's: compared by content, not by order, so that
// files may be added and renamed between imports. A new one gets the lowest seed that is free for its method and
// article. Throws Error(kData) naming file and record where one of the same place in a file of the same name has
// another content now.
std::vector<Record> keep_new(std::vector<Record> records, const std::vector<Record>& present);

}  // namespace kvc
