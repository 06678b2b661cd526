// The work between a layer's products by this project's own CUDA kernels, one launch each, on the current stream of the
// tensors' GPU: nothing where the build has none or they do not take the tensors (float32 or bfloat16, rows dense).
// Arguments and results as in harness/model/elementwise.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <utility>

namespace kvc::gpu {

// Queries and keys.
std::optional<std::pair<at::Tensor, at::Tensor>> rotate_heads(const at::Tensor& qkv, int64_t n_query_heads,
                                                              int64_t n_kv_heads, const at::Tensor& q_norm,
                                                              const at::Tensor& k_norm, double eps,
                                                              const at::Tensor& cos, const at::Tensor& sin,
                                                              const at::Tensor& positions);
// a + b and its norm.
std::optional<std::pair<at::Tensor, at::Tensor>> add_rms_norm(const at::Tensor& a, const at::Tensor& b,
                                                              const at::Tensor& weight, double eps);
std::optional<at::Tensor> silu_mul(const at::Tensor& gate_up);

}  // namespace kvc::gpu
