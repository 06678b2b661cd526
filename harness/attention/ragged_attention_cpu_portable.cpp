// The kernel for any processor: vectors of four. Its bfloat16 kernel works on pairs with the products spelled out, so
// that the layout of the bfloat16 instructions is tested everywhere.
#include "harness/attention/ragged_attention_cpu.h"

namespace kvc {
namespace cpu_portable {
namespace {
#define KVC_WIDTH 4
#define KVC_TALL_TILE 4
#include "harness/attention/ragged_attention_cpu_kernel.h"
}  // namespace
}  // namespace cpu_portable

std::vector<CpuAttentionKernel> cpu_attention_portable_kernels() {
  using namespace cpu_portable;
  return {pairs_kernel(CpuLevel::kPortable), float32_kernel(CpuLevel::kPortable)};
}

}  // namespace kvc
