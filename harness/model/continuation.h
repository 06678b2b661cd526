// The likelihood of given text over one shared cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "harness/model/model.h"

namespace kvc {

// A text to be scored after prompts[prompt]; at least one token.
struct Continuation {
  int64_t prompt = 0;
  std::vector<int64_t> tokens;
};

// sum over tokens of log p(token | prefix, prompt, earlier tokens), natural log, for each continuation. Each prompt is
// read once; its tail is then forked for its continuations.
std::vector<double> continuation_log_likelihoods(const Model& model, const KvCache& prefix,
                                                 const std::vector<std::vector<int64_t>>& prompts,
                                                 const std::vector<Continuation>& continuations);

// Hidden states (after the final norm) from which each continuation token is predicted: element i is (tokens of
// continuation i, hidden), row j predicting token j. With Decoder::logits on a few rows at a time this gives whole
// distributions without ever holding tokens x vocabulary.
std::vector<at::Tensor> continuation_hidden(const Model& model, const KvCache& prefix,
                                            const std::vector<std::vector<int64_t>>& prompts,
                                            const std::vector<Continuation>& continuations);

// log p(tokens[i + 1] | tokens[0..i]), natural log, for all tokens but the first: (n - 1). The text is read in chunks,
// and logits exist for a bounded number of rows. `progress`, if given, hears how many tokens are read. Throws
// Error(kData) when the text is longer than the model's positions or a token is outside the vocabulary.
std::vector<double> text_log_probs(const Model& model, const std::vector<int64_t>& tokens,
                                   const std::function<void(int64_t read)>& progress = {});

}  // namespace kvc
