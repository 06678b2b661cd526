// Warp-wide instructions of compute capability 8.0 and on: products on tensor cores, what brings numbers to them, and
// copies into shared memory that run beside the arithmetic. Tests run the same calls on the host, lane by lane, with
// the layouts that the PTX manual gives (harness/testing/cuda_emulation.h).
//
// Layouts, lane l of a warp, g = l / 4, p = 2 (l % 4); a register holds two bfloat16 numbers, the lower column first:
//   a (16,16): rows g and g + 8 of columns p, p + 1 (registers 0, 1), then of columns p + 8, p + 9 (2, 3)
//   b (16,8):  rows p, p + 1 of column g (register 0), rows p + 8, p + 9 of it (1)
//   c (16,8):  row g, columns p, p + 1 (0, 1); row g + 8 (2, 3)
#pragma once

#include "harness/attention/cuda_kernel.h"

namespace kvc::KVC_CUDA_NAMESPACE {

#ifdef KVC_CUDA_EMULATION
using ::kvc::emulation::commit_copies;
using ::kvc::emulation::copy_async;
using ::kvc::emulation::exp2_fast;
using ::kvc::emulation::load_matrices;
using ::kvc::emulation::load_matrices_transposed;
using ::kvc::emulation::multiply_add;
using ::kvc::emulation::wait_for_copies;
#else

// c += a b, products of bfloat16 summed in float32.
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Four (8,8) matrices of two-byte numbers from shared memory. Lane l names row l % 8 of matrix l / 8 (16 bytes,
// aligned); register m of lane l becomes columns p, p + 1 of row g of matrix m, or, transposed, rows p, p + 1 of
// column g.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row)));
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row)));
}

// Sixteen bytes to shared memory, zeros where !there (`from` must be a valid address all the same). Seen by this thread
// after wait_for_copies(), by others after a barrier behind that.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0)
               : "memory");
}
// Closes a group of copies.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits for all groups of this thread.
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group 0;" ::: "memory");
}

// 2^x, within 2 units in the last place; 0 of minus infinity.
__device__ __forceinline__ float exp2_fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
#endif

// Two numbers as a register holds them.
__device__ __forceinline__ uint32_t pair_of(float low, float high) {
  const __nv_bfloat16 pair[2] = {__float2bfloat16(low), __float2bfloat16(high)};
  uint32_t bits;
  memcpy(&bits, pair, sizeof(bits));
  return bits;
}

}  // namespace kvc::KVC_CUDA_NAMESPACE
