// From logits to the next token.
#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace kvc {

// The token of the highest logit, the lowest id among equals. Throws Error(kData) when a logit is NaN or none is
// finite.
int64_t greedy_token(std::span<const float> logits);

// Draws a token from softmax(logits / temperature), restricted first to the top_k most probable tokens (0 = all; ties:
// lower ids first), then to the smallest set of those whose probability reaches top_p. One number is taken from
// `random` whatever the outcome, so that a sequence's stream depends on nothing but its own length. temperature > 0.
// Computed in float64. Throws like greedy_token.
int64_t sampled_token(std::span<const float> logits, double temperature, int64_t top_k, double top_p, double min_p,
                      std::mt19937_64& random);

}  // namespace kvc
