// Has the model write the conversations of self-study behind the context's full cache.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/queries/study_texts.h"

namespace kvc {

struct StudySettings {
  std::vector<std::string> kinds;  // names of study_kinds()
  int64_t most_tokens = 0;         // of one writing; 0 = as many as its kind has
  bool thinking = true;            // where conversation and model have it
};

// Role A writes the starters that are made up, up to three times until some are found; then role B answers all. Those
// of equal settings are written together over the shared cache, sampled as the source has it (temperature 0.6, top_p
// 0.95 in thought, else 0.7 and 0.8; top_k 20), each from a seed of its own: the texts depend on request.seed alone. An
// answer whose thoughts do not end is dropped. Throws Error(kData): too few positions are left (with the numbers), or
// no conversation came about.
StudyTexts write_study(const QueryRequest& request, const StudySettings& settings);

}  // namespace kvc
