#include "harness/testing/emulated_pursuit.h"

#include "harness/testing/cuda_emulation.h"
// The kernels, under the emulation's names.
#include "harness/attention/cuda_pursuit_glue.h"
#include "harness/attention/pursuit_cuda.cu"

namespace kvc {

const PursuitKernels* emulated_pursuit_kernels() {
  static const PursuitKernels kernels{emulated_cuda::kMostCandidates,
                                      [](const PursuitTensors& heads, const std::vector<int64_t>& rows) {
                                        return emulated_cuda::pursuit_rest(heads, rows, nullptr);
                                      },
                                      [](const PursuitTensors& heads, const PursuitIteration& now) {
                                        return emulated_cuda::pursuit_advance(heads, now, nullptr);
                                      }};
  return &kernels;
}

}  // namespace kvc
