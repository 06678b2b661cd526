// Texts behind a context from which a cache can be trained, and what the model makes of them with the full cache.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/api/context.h"
#include "methods/parts/cache_training.h"

namespace kvc {

struct TextSource {
  const Model& model;
  const Context& context;
  const KvCache& cache;  // full
  std::uint64_t seed = 0;
};

// Tokens behind the context, each text at most `text_tokens` long. Throw Error(kData) when less than 64 positions are
// left, with numbers.

// The article in equal parts; each follows a request to repeat the context, from the part's first words on. Nothing is
// written by the model.
std::vector<std::vector<int64_t>> repeated_texts(const TextSource& source, int64_t text_tokens);
// Requests of self-study (arXiv:2602.16284: summarise, aggregate, structure, ask) in turn, each with the model's
// answer, sampled as published: temperature 0.7, top_p 0.8, top_k 20. All are written together.
std::vector<std::vector<int64_t>> self_study_texts(const TextSource& source, int64_t n_texts, int64_t text_tokens);

// One forward pass of the full cache over each text.
std::vector<TrainingText> with_teacher(const TextSource& source, std::vector<std::vector<int64_t>> texts);

}  // namespace kvc
