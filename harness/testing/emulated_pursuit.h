// The pursuit's CUDA kernels, run on the host by their own text (cuda_emulation.h): slow, for small problems on the
// CPU.
#pragma once

#include "harness/math/pursuit_kernels.h"

namespace kvc {

const PursuitKernels* emulated_pursuit_kernels();

}  // namespace kvc
