// Decoding many sequences together over one shared cache: greedy or sampled generation, and the likelihood of given
// text. The prefix is read once per step for the whole batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/model/model.h"

namespace kvc {

struct DecodeSettings {
  int64_t max_new_tokens = 64;
  double temperature = 0;  // 0 = greedy
  int64_t top_k = 0;       // 0 = all
  double top_p = 1.0;
  Json to_json() const;
};

struct Generation {
  std::vector<int64_t> tokens;  // without the end token
  std::string stop_reason;      // "end" (an end token) or "length"
};

// prompts[b]: tokens read behind the prefix before the first new one, at least one. seeds[b]: of sequence b's own
// random stream, so that a sequence's answer does not depend on its neighbours; unused when greedy.
std::vector<Generation> generate(const Model& model, const KvCache& prefix,
                                 const std::vector<std::vector<int64_t>>& prompts, const DecodeSettings& settings,
                                 const std::vector<std::uint64_t>& seeds);

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

}  // namespace kvc
