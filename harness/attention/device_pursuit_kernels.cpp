// KVC_CUDA_KERNELS: the build compiled pursuit_cuda.cu and links it.
#include "harness/attention/device_pursuit_kernels.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "harness/attention/cuda_pursuit_glue.h"
#include "harness/attention/kernel_stand_in.h"

namespace kvc::gpu {

#ifdef KVC_CUDA_KERNELS

namespace {

CudaStream stream_of(const at::Tensor& tensor) {
  const c10::Device device = tensor.device();
  return static_cast<CudaStream>(c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle());
}

}  // namespace

const PursuitKernels* pursuit_kernels(const c10::Device& device) {
  static const PursuitKernels kernels{cuda::kMostCandidates,
                                      [](const PursuitTensors& heads, const std::vector<int64_t>& rows) {
                                        const c10::DeviceGuard guard(heads.table.device());
                                        return cuda::pursuit_rest(heads, rows, stream_of(heads.table));
                                      },
                                      [](const PursuitTensors& heads, const PursuitIteration& now) {
                                        const c10::DeviceGuard guard(heads.table.device());
                                        return cuda::pursuit_advance(heads, now, stream_of(heads.table));
                                      }};
  return device.is_cuda() ? &kernels : nullptr;
}

#else

const PursuitKernels* pursuit_kernels(const c10::Device& device) {
  const KernelStandIn* calls = device.is_cuda() ? stand_in() : nullptr;
  return calls == nullptr ? nullptr : &calls->pursuit_kernels;
}

#endif

}  // namespace kvc::gpu
