// The pursuit's kernels of a GPU (pursuit_cuda.h), for DevicePursuits.
#pragma once

#include <ATen/core/Tensor.h>

#include "harness/math/pursuit_kernels.h"

namespace kvc::gpu {

// Kernels on the current stream of the tensors' GPU, where this build has them; null on the CPU and without.
const PursuitKernels* pursuit_kernels(const c10::Device& device);

}  // namespace kvc::gpu
