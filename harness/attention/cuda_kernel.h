// What every .cu file begins with: numbers of the model's dtype, reductions over a warp, launches. Includes no torch
// header. Tests compile the same text for the host, behind harness/testing/cuda_emulation.h.
#pragma once

#include "harness/attention/cuda_launch.h"

#ifndef KVC_CUDA_EMULATION
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define KVC_UNROLL _Pragma("unroll")
// Dynamic shared memory, 16-byte aligned.
#define KVC_SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace kvc::KVC_CUDA_NAMESPACE {

#ifdef KVC_CUDA_EMULATION
using KVC_EMULATED_LAUNCH;
#else
// Why the launch failed, or null. Blocks that want more than the 48 KiB of shared memory that every GPU grants are
// asked for by name.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   const Arguments&... arguments) {
  constexpr size_t kGranted = 48 << 10;
  if (shared_bytes > kGranted) {
    const cudaError_t refused =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (refused != cudaSuccess) {
      cudaGetLastError();  // else the next launch that asks would report it again
      return cudaGetErrorString(refused);
    }
  }
  // clang-format off
  kernel<<<grid, block, shared_bytes, stream>>>(arguments...);
  // clang-format on
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
#endif

constexpr unsigned kAllLanes = 0xffffffffU;
constexpr int kWarpLanes = 32;

__device__ __forceinline__ float to_float(float x) {
  return x;
}
__device__ __forceinline__ float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ __forceinline__ void store(float* to, float x) {
  *to = x;
}
__device__ __forceinline__ void store(__nv_bfloat16* to, float x) {
  *to = __float2bfloat16(x);
}

// Sixteen bytes of numbers, read at once.
template <class T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T x[kSize];
};

inline bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

__device__ __forceinline__ float warp_sum(float x) {
  for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

}  // namespace kvc::KVC_CUDA_NAMESPACE
