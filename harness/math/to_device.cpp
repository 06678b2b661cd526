#include "harness/math/to_device.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

namespace kvc {

at::Tensor to_device(const at::Tensor& host, const c10::Device& device) {
  if (!device.is_cuda()) return host.to(device);
  // Pinned memory belongs to the context of the current GPU: without the guard a run on cuda:1 opens one on cuda:0 too.
  const c10::DeviceGuard guard(device);
  const at::Tensor pinned = at::empty(host.sizes(), host.options().pinned_memory(at::hasCUDA()));
  pinned.copy_(host);
  return pinned.to(device, /*non_blocking=*/true);
}

}  // namespace kvc
