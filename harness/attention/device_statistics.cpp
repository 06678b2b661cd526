// KVC_CUDA_KERNELS: the build compiled tensor_attention_cuda.cu and links it.
#include "harness/attention/device_statistics.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "harness/attention/cuda_statistics_glue.h"
#include "harness/attention/kernel_stand_in.h"

namespace kvc::gpu {

#ifdef KVC_CUDA_KERNELS

std::optional<AttentionStatistics> attention_statistics(const at::Tensor& queries, const at::Tensor& keys,
                                                        const at::Tensor& bias, const at::Tensor& values, KeySum sum,
                                                        const RowReach& reach) {
  if (!queries.is_cuda()) return std::nullopt;
  const c10::Device where = queries.device();
  const c10::DeviceGuard device(where);
  const auto stream =
      static_cast<CudaStream>(c10::impl::VirtualGuardImpl(where.type()).getStream(where).native_handle());
  return cuda::statistics(queries, keys, bias, values, sum, reach, stream);
}

#else

std::optional<AttentionStatistics> attention_statistics(const at::Tensor& queries, const at::Tensor& keys,
                                                        const at::Tensor& bias, const at::Tensor& values, KeySum sum,
                                                        const RowReach& reach) {
  const KernelStandIn* calls = queries.is_cuda() ? stand_in() : nullptr;
  if (calls == nullptr) return std::nullopt;
  return calls->attention_statistics(queries, keys, bias, values, sum, reach);
}

#endif

}  // namespace kvc::gpu
