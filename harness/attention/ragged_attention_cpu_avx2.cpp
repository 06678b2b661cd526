// The kernel for AVX2 with FMA. bfloat16 keys and values are widened to float32, weights are not rounded.
#include "harness/attention/ragged_attention_cpu.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

namespace kvc {
namespace cpu_avx2 {
namespace {
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define KVC_WIDTH 8
#define KVC_TALL_TILE 4
#include "harness/attention/ragged_attention_cpu_kernel.h"
#pragma GCC pop_options
}  // namespace
}  // namespace cpu_avx2

std::vector<CpuAttentionKernel> cpu_attention_avx2_kernels() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return {};
  using namespace cpu_avx2;
  return {widening_kernel(CpuLevel::kAvx2), float32_kernel(CpuLevel::kAvx2)};
}

}  // namespace kvc

#else

namespace kvc {
std::vector<CpuAttentionKernel> cpu_attention_avx2_kernels() {
  return {};
}
}  // namespace kvc

#endif
