// From tensors to the launchers of layer_kernels_cuda.h: on the current GPU, or, for the kernels as tests emulate them,
// on the CPU. Returns nothing if the kernels do not support the tensors. Arguments as in harness/model/elementwise.h.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <utility>

#include "harness/attention/cuda_attention_glue.h"
#include "harness/attention/layer_kernels_cuda.h"

namespace kvc::KVC_CUDA_NAMESPACE {

inline bool is_plain(const at::Tensor& tensor, at::ScalarType dtype) {
  return !tensor.defined() || (tensor.is_contiguous() && tensor.scalar_type() == dtype);
}

inline bool layer_kernels_take(const at::Tensor& rows) {
  const bool known = rows.scalar_type() == at::kFloat || rows.scalar_type() == at::kBFloat16;
  return known && rows.dim() == 2 && rows.is_contiguous();
}

inline const void* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}

inline std::optional<std::pair<at::Tensor, at::Tensor>> rotate(const at::Tensor& qkv, int64_t n_query_heads,
                                                               int64_t n_kv_heads, const at::Tensor& q_norm,
                                                               const at::Tensor& k_norm, double eps,
                                                               const at::Tensor& cos, const at::Tensor& sin,
                                                               const at::Tensor& positions, CudaStream stream) {
  const int64_t n = qkv.size(0), d = 2 * cos.size(1), heads = n_query_heads + 2 * n_kv_heads;
  // Queries alone (no KV heads) come without keys and values beside them.
  if (!layer_kernels_take(qkv) || qkv.size(1) != heads * d || !is_plain(q_norm, qkv.scalar_type()) ||
      !is_plain(k_norm, qkv.scalar_type()) || !positions.is_contiguous()) {
    return std::nullopt;
  }
  std::pair<at::Tensor, at::Tensor> out{at::empty({n, n_query_heads, d}, qkv.options()),
                                        at::empty({n, n_kv_heads, d}, qkv.options())};
  const RotationShape shape{
      number_of(qkv),         n, static_cast<int>(n_query_heads), static_cast<int>(n_kv_heads), static_cast<int>(d),
      static_cast<float>(eps)};
  demand(rotate_heads(shape, qkv.const_data_ptr(), data_or_null(q_norm), data_or_null(k_norm),
                      cos.const_data_ptr<float>(), sin.const_data_ptr<float>(), positions.const_data_ptr<int64_t>(),
                      out.first.mutable_data_ptr(), out.second.mutable_data_ptr(), stream),
         "rotation kernel");
  return out;
}

inline std::optional<std::pair<at::Tensor, at::Tensor>> add_and_norm(const at::Tensor& a, const at::Tensor& b,
                                                                     const at::Tensor& weight, double eps,
                                                                     CudaStream stream) {
  if (!layer_kernels_take(a) || !layer_kernels_take(b) || b.scalar_type() != a.scalar_type() ||
      !is_plain(weight, a.scalar_type())) {
    return std::nullopt;
  }
  std::pair<at::Tensor, at::Tensor> out{at::empty_like(a), at::empty_like(a)};
  demand(
      add_rms_norm(number_of(a), a.size(0), a.size(1), static_cast<float>(eps), a.const_data_ptr(), b.const_data_ptr(),
                   weight.const_data_ptr(), out.first.mutable_data_ptr(), out.second.mutable_data_ptr(), stream),
      "norm kernel");
  return out;
}

inline std::optional<at::Tensor> gate(const at::Tensor& gate_up, CudaStream stream) {
  if (!layer_kernels_take(gate_up)) return std::nullopt;
  const int64_t size = gate_up.size(1) / 2;
  at::Tensor out = at::empty({gate_up.size(0), size}, gate_up.options());
  demand(silu_mul(number_of(gate_up), gate_up.size(0), size, gate_up.const_data_ptr(), out.mutable_data_ptr(), stream),
         "activation kernel");
  return out;
}

}  // namespace kvc::KVC_CUDA_NAMESPACE
