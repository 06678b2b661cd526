// Questions that the model writes about a document which has none. They are asked for fidelity to the full cache: what
// is compared is the model with itself, and nobody says what would be the right answer.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/api/task.h"

namespace kvc {

// `questions` with the text of each that is written_by_model replaced by what the model writes on the full cache: the
// answer to the question's request, sampled as self-study samples (temperature 0.7, top_p 0.8, top_k 20), without
// thoughts, at most 128 tokens. An empty reply, a repeated one and one that the limit
// cuts are written anew, twice at most; then a cut one is taken, and a question that is empty or repeated is left out.
// The texts depend on model, document and `seed` alone; `kept` (or nullptr) has those of earlier runs. Throws
// Error(kData) where no question came about.
std::vector<Question> write_questions(const Model& model, const KvCache& full, std::vector<Question> questions,
                                      std::uint64_t seed, KeptAnswers* kept);

}  // namespace kvc
