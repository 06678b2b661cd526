// Statistical leverage of keys: how little the others can be combined to them.
//
// Letters: T keys, d dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvc {

// x_i (X^T X + 0.01 I)^-1 x_i with X = (keys less their mean) Phi, Phi (d, sketch) Gaussian / sqrt(sketch) drawn from
// `seed`; sketch 0: Phi is the identity. keys (T, d) of any float dtype; float64 inside. (T) float32, >= 0.
at::Tensor leverage_scores(const at::Tensor& keys, int64_t sketch, std::uint64_t seed);

}  // namespace kvc
