// Results of several folders (the shards of a sweep, or copies of one sweep from several machines) brought together in
// one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/sweep/coverage.h"

namespace kvc {

struct MergeOptions {
  bool mixed_programs = false;  // records of several states of the program are taken; the report then says so
};

struct MergeSummary {
  std::int64_t folders = 0;     // that were read
  std::int64_t records = 0;     // that are in the target now
  std::int64_t duplicates = 0;  // that said the same as another
  std::vector<std::string> warnings;
  Coverage coverage;  // of the target
};

// Reads the sources (a results folder stands for itself and its shards) and writes everything into `target`: records,
// reference answers, texts of query sources, explanations, documents.json, self_proof.json, config.json. Whole files
// are written beside the old ones and renamed; what the target has is kept, and a second merge changes nothing. The
// sources are left as they are. Throws Error(kUsage): the target among the sources; a source twice, or being written.
// Error(kData): no such folder; other sweep files, weights, data or programs; two different results of one (cell,
// document).
MergeSummary merge_results(const std::vector<std::string>& sources, const std::string& target,
                           const MergeOptions& options = {});

}  // namespace kvc
