// RoPE undone and done again on single heads.
//
// Letters: n rows, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "harness/api/compaction_method.h"

namespace kvc {

// Cosine and sine of the angles at some positions, (n, d / 2) float32 each, without YaRN's factor: what was rotated
// with it still carries it.
struct Turn {
  at::Tensor cos, sin;
};

// positions: (n) int64 on the CPU; the result is where `options` says.
Turn turn_at(const DecoderSpec& spec, const at::Tensor& positions, const at::TensorOptions& options);

// (..., n, d) float32 turned by the angles (sign 1), or back (sign -1).
at::Tensor turned(const at::Tensor& x, const Turn& turn, double sign);

// The head's queries before their rotation, query head by query head: (g, n / g, d) float32. Throws Error(kUsage), in
// the name of `method`, where their positions are unknown or rows do not tell whose they are.
at::Tensor unrotated_queries(const HeadProblem& problem, const std::string& method);

// The head's keys before their rotation, (T, d) float32. Undefined where their positions are unknown: the head comes
// without a model, or from a cache that was compacted before.
at::Tensor unrotated_keys(const HeadProblem& problem);

}  // namespace kvc
