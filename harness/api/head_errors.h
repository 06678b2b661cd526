// How well one compacted head stands in for the original, on given queries.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/api/compaction_method.h"

namespace kvc {

// Errors of attention mass and output over n queries; a_i is the exact one of query i, b_i that of the compacted head.
struct HeadErrors {
  int64_t n_queries = 0;
  double mass_relative_rms = 0;    // root mean square of mass_b / mass_a - 1
  double mass_relative_max = 0;    // largest |mass_b / mass_a - 1|
  double log_mass_mean_abs = 0;    // mean |log mass_b - log mass_a|
  double output_relative = 0;      // ||b - a||_F / ||a||_F over all queries
  double output_relative_max = 0;  // largest ||b_i - a_i|| / ||a_i||
  double cosine_mean = 0;          // mean cosine of a_i and b_i
  Json to_json() const;
};

// Keys, values and bias of `problem` against those of `fit`, over `queries` (n, d). Products in float32, all else in
// float64, some queries at a time: memory about 2^24 numbers. Cost 4 n (T + t) d flops.
HeadErrors head_errors(const HeadProblem& problem, const HeadFit& fit, const at::Tensor& queries);

// What attention over one head's entries gives: ln sum_j exp(q k_j / sqrt(d) + bias_j), minus infinity over no entries,
// and the output, 0 over no entries.
struct HeadOutput {
  at::Tensor log_mass;  // (n) float64
  at::Tensor output;    // (n, d) float32
};

// keys, values (T, d); bias (T) float32 or undefined; queries (n, d). Computed in float32, some queries at a time:
// memory about 2^24 numbers besides the result. Cost 4 n T d flops.
HeadOutput head_output(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& bias,
                       const at::Tensor& queries);

}  // namespace kvc
