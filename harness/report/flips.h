// Questions that a compact cache answers otherwise than the full cache: right becomes wrong, or wrong right.
#pragma once

#include <string>
#include <vector>

#include "harness/report/report.h"

namespace kvc {

struct Flip {
  std::string model, dataset, task, method, queries;  // labels of the report
  Json target;                                        // null where the method takes none
  std::string seed;                                   // JSON text
  std::string document, question;                     // ids
  double full_value = 0, value = 0;                   // of the task's primary metric
  std::string prompt, gold;
  std::string full_reply, reply;  // what was written; of scored options the likeliest; "" where the record has neither
  bool gained() const { return value > full_value; }
};

struct FlipFilter {
  std::vector<std::string> methods;  // names or labels; none: all that compact, without the floor
  std::vector<std::string> targets;  // as in the sweep file; none: all
};

struct Flips {
  std::vector<Flip> list;  // by table, method, target, document, question; one for each seed
  int64_t n_compared = 0;  // questions that were compared, each method, target and seed counted
};

// By each task's primary metric, where that is a share; an answer counts as right above one half. Throws Error(kUsage)
// for a method or target that is not in the results, with what there is; Error(kData) where no table has both such a
// metric and the full cache.
Flips find_flips(const LoadedReport& loaded, const FlipFilter& filter);

// For a terminal: at most `width` columns wide, control characters of replies written as \x1b, long texts cut.
std::string flips_text(const Flips& flips, const std::string& folder, size_t width);

// One JSON line for each: {model, dataset, task, method, queries, target, seed, document_id, question_id, change
// ("right_to_wrong" or "wrong_to_right"), full_value, value, question, gold, full_reply, reply}, texts uncut.
std::string flips_json(const Flips& flips);

}  // namespace kvc
