// Attention Matching with highest-attention keys as plain float64 loops (arXiv:2602.16284): the judge of the
// fast code.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace kvc {

struct NaiveMatchingSettings {
  bool fit_bias = true;
  bool fit_values = true;
  double bias_bound = 3.0;
  // Clamped least squares only: the gradient steps depend on a random start and are judged with the solver.
};

struct NaiveMatching {
  std::vector<int64_t> indices;             // (t) descending rms score, lower index first among equals
  std::vector<double> bias;                 // (t) old bias included
  std::vector<std::vector<double>> values;  // (t,d)
};

// queries (n,d), keys (T,d), values (T,d), bias (T) or undefined; any float dtype. Needs n >= t and independent
// columns. Small sizes only.
NaiveMatching naive_attention_matching(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                                       const at::Tensor& bias, int64_t target_len,
                                       const NaiveMatchingSettings& settings);

// Attention output (n,d) and attention mass's logarithm (n) of queries over entries, float64 loops.
struct NaiveAttention {
  std::vector<std::vector<double>> output;
  std::vector<double> log_mass;
};
NaiveAttention naive_attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                               const at::Tensor& bias);

}  // namespace kvc
