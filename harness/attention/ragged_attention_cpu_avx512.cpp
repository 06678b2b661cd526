// The kernel for AVX-512, and with the bfloat16 dot product of AVX512_BF16 where the processor has it.
#include "harness/attention/ragged_attention_cpu.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

namespace kvc {
namespace cpu_avx512 {
namespace {
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")
#define KVC_WIDTH 16
#define KVC_TALL_TILE 8
#define KVC_PAIR_PRODUCT(a, b, c) \
  reinterpret_cast<Floats>(_mm512_dpbf16_ps((__m512)(c), (__m512bh)(Words{} + (a)), (__m512bh)(b)))
#include "harness/attention/ragged_attention_cpu_kernel.h"
#pragma GCC pop_options
}  // namespace
}  // namespace cpu_avx512

std::vector<CpuAttentionKernel> cpu_attention_avx512_kernels() {
  using namespace cpu_avx512;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return {};
  }
  std::vector<CpuAttentionKernel> kernels = {widening_kernel(CpuLevel::kAvx512), float32_kernel(CpuLevel::kAvx512)};
  if (__builtin_cpu_supports("avx512bf16")) kernels.insert(kernels.begin(), pairs_kernel(CpuLevel::kAvx512Bf16));
  return kernels;
}

}  // namespace kvc

#else

namespace kvc {
std::vector<CpuAttentionKernel> cpu_attention_avx512_kernels() {
  return {};
}
}  // namespace kvc

#endif
