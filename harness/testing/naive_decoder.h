// The decoder as plain float64 loops, one token after the other: the judge of every faster way to compute it.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/kv/kv_cache.h"
#include "harness/model/decoder.h"

namespace kvc {

struct NaiveResult {
  std::vector<std::vector<double>> hidden;                // [token][hidden], after the final norm
  std::vector<std::vector<double>> logits;                // [token][vocab]
  std::vector<std::vector<std::vector<double>>> queries;  // [layer][token][Hq d], rotated
};

// Reads `tokens` behind `prefix` (ragged, with biases). Weights and prefix float32 or bfloat16 on the CPU.
NaiveResult naive_forward(const DecoderSpec& spec, const DecoderWeights& weights, const KvCache& prefix,
                          const std::vector<int64_t>& tokens);

// Natural log of the probability of `token` under softmax(logits).
double naive_log_probability(const std::vector<double>& logits, int64_t token);

}  // namespace kvc
