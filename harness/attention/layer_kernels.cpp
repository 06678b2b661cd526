// KVC_CUDA_KERNELS: the build compiled layer_kernels_cuda.cu and links it.
#include "harness/attention/layer_kernels.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "harness/attention/cuda_layer_glue.h"
#include "harness/attention/kernel_stand_in.h"

namespace kvc::gpu {

using Pair = std::optional<std::pair<at::Tensor, at::Tensor>>;

#ifdef KVC_CUDA_KERNELS

namespace {

CudaStream stream_of(const at::Tensor& tensor) {
  const c10::Device device = tensor.device();
  return static_cast<CudaStream>(c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle());
}

}  // namespace

Pair rotate_heads(const at::Tensor& qkv, int64_t n_query_heads, int64_t n_kv_heads, const at::Tensor& q_norm,
                  const at::Tensor& k_norm, double eps, const at::Tensor& cos, const at::Tensor& sin,
                  const at::Tensor& positions) {
  if (!qkv.is_cuda()) return std::nullopt;
  const c10::DeviceGuard device(qkv.device());
  return cuda::rotate(qkv, n_query_heads, n_kv_heads, q_norm, k_norm, eps, cos, sin, positions, stream_of(qkv));
}

Pair add_rms_norm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& weight, double eps) {
  if (!a.is_cuda()) return std::nullopt;
  const c10::DeviceGuard device(a.device());
  return cuda::add_and_norm(a, b, weight, eps, stream_of(a));
}

std::optional<at::Tensor> silu_mul(const at::Tensor& gate_up) {
  if (!gate_up.is_cuda()) return std::nullopt;
  const c10::DeviceGuard device(gate_up.device());
  return cuda::gate(gate_up, stream_of(gate_up));
}

#else

namespace {

// What a test put in the kernels' place, for tensors of its GPU.
const KernelStandIn* instead(const at::Tensor& tensor) {
  return tensor.is_cuda() ? stand_in() : nullptr;
}

}  // namespace

Pair rotate_heads(const at::Tensor& qkv, int64_t n_query_heads, int64_t n_kv_heads, const at::Tensor& q_norm,
                  const at::Tensor& k_norm, double eps, const at::Tensor& cos, const at::Tensor& sin,
                  const at::Tensor& positions) {
  const KernelStandIn* calls = instead(qkv);
  if (calls == nullptr) return std::nullopt;
  return calls->rotate_heads(qkv, n_query_heads, n_kv_heads, q_norm, k_norm, eps, cos, sin, positions);
}

Pair add_rms_norm(const at::Tensor& a, const at::Tensor& b, const at::Tensor& weight, double eps) {
  const KernelStandIn* calls = instead(a);
  return calls == nullptr ? std::nullopt : calls->add_rms_norm(a, b, weight, eps);
}

std::optional<at::Tensor> silu_mul(const at::Tensor& gate_up) {
  const KernelStandIn* calls = instead(gate_up);
  return calls == nullptr ? std::nullopt : calls->silu_mul(gate_up);
}

#endif

}  // namespace kvc::gpu
