// The subset of CUDA C++ that this project's kernels are written in, run by the host's compiler on the host: a test
// includes this header, then the .cu file itself. Slow, and strict where a GPU is lenient: a barrier that some threads
// of a block (or lanes of a warp) never reach ends the program with a message, and shared memory starts as NaN.
//
// Each thread of a block is a fiber; blocks run one after the other, and so do a block's warps from barrier to barrier.
// So what is shown is the arithmetic, the indexing and the barriers, not memory order among blocks, speed, or
// registers.
//
// Known: __global__, __device__, __shared__ (static), dynamic shared memory by KVC_SHARED_MEMORY, __syncthreads,
// __syncwarp, __shfl_xor_sync and __shfl_sync of whole warps, float4, __nv_bfloat16, __float_as_uint, atomicAdd of int,
// launches by launch(); of tensor cores what harness/attention/tensor_cores.h names, register by register. Copies into
// shared memory that are not waited for do not arrive.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#define KVC_CUDA_EMULATION 1
#ifndef KVC_CUDA_NAMESPACE
#define KVC_CUDA_NAMESPACE emulated_cuda  // beside the real kernels, where a build has them
#endif
// Where launch() is from: with KVC_COUNT_LAUNCHES_ONLY it runs nothing and tells counting::seen().
#ifdef KVC_COUNT_LAUNCHES_ONLY
#define KVC_EMULATED_LAUNCH ::kvc::emulation::counting::launch
#else
#define KVC_EMULATED_LAUNCH ::kvc::emulation::launch
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static
#define KVC_UNROLL
#define KVC_SHARED_MEMORY(name) unsigned char* name = ::kvc::emulation::block().dynamic_shared.get()

struct uint3 {
  unsigned x, y, z;
};
struct dim3 : uint3 {
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : uint3{x_, y_, z_} {}  // NOLINT: as CUDA has it
};
struct alignas(16) float4 {
  float x, y, z, w;
};

struct CUstream_st;
using cudaStream_t = CUstream_st*;
using cudaError_t = int;
inline constexpr cudaError_t cudaSuccess = 0;
inline const char* cudaGetErrorString(cudaError_t) {
  return "emulated";
}
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}

struct __nv_bfloat16 {
  std::uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16U);
}
inline __nv_bfloat16 __float2bfloat16(float x) {  // to nearest, ties to even
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return {static_cast<std::uint16_t>(0x7fffU)};
  return {static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U)};
}

inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
// Fibers take turns at barriers only.
inline int atomicAdd(int* to, int x) {
  const int before = *to;
  *to += x;
  return before;
}

namespace kvc::emulation {

static_assert(__STDCPP_DEFAULT_NEW_ALIGNMENT__ >= 16, "shared memory is 16-byte aligned");

constexpr unsigned kWarp = 32;
enum class Wait : std::uint8_t { kNothing, kBlock, kWarpLanes, kEnded };

// Sixteen bytes under way to shared memory; from nowhere: zeros.
struct Copy {
  void* to;
  const void* from;
};

// Fibers take turns by _longjmp: swapcontext saves the signal mask, a call to the system each time. Sanitizers follow
// swapcontext only.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KVC_SWITCH_BY_CONTEXT 1
#endif

struct Fiber {
  ucontext_t context{};
  jmp_buf place;
  bool started = false;
  std::unique_ptr<char[]> stack;
  uint3 index{};
  Wait wait = Wait::kNothing;
  unsigned n_shuffles = 0;
  std::vector<Copy> copies;     // since the last commit_copies()
  std::vector<Copy> committed;  // not waited for
};

// A lane's part of a warp-wide instruction.
struct Operands {
  std::uint32_t a[4], b[2];
  const void* row;
};

struct Block {
  uint3 index{}, dim{}, grid{};
  std::vector<Fiber> fibers;
  std::unique_ptr<unsigned char[]> dynamic_shared;
  // What lanes show each other. Two sets in turn: a lane may reach the next shuffle before its neighbours have read.
  std::vector<std::uint64_t> shown[2];
  std::vector<Operands> operands[2];  // likewise
  std::function<void()> body;
  ucontext_t scheduler{};
  jmp_buf scheduler_place;
  unsigned current = 0;
};

inline Block& block() {
  static Block instance;
  return instance;
}

inline std::int64_t& n_launches() {
  static std::int64_t count = 0;
  return count;
}

[[noreturn]] inline void stop(const char* why) {
  std::fprintf(stderr, "CUDA emulation: %s (block %u,%u,%u)\n", why, block().index.x, block().index.y, block().index.z);
  std::abort();
}

#ifdef KVC_SWITCH_BY_CONTEXT
inline void go_to(Fiber& fiber) {
  swapcontext(&block().scheduler, &fiber.context);
}
inline void leave(Fiber& fiber) {
  swapcontext(&fiber.context, &block().scheduler);
}
#else
inline void go_to(Fiber& fiber) {
  if (_setjmp(block().scheduler_place) != 0) return;
  if (fiber.started) _longjmp(fiber.place, 1);
  fiber.started = true;
  setcontext(&fiber.context);
}
inline void leave(Fiber& fiber) {
  if (_setjmp(fiber.place) == 0) _longjmp(block().scheduler_place, 1);
}
#endif

inline void wait_for(Wait what) {
  Fiber& fiber = block().fibers[block().current];
  fiber.wait = what;
  leave(fiber);
}

inline void enter() {
  block().body();
  Fiber& fiber = block().fibers[block().current];
  fiber.wait = Wait::kEnded;
  leave(fiber);  // for good
}

// Lets those go that all wait for the same thing; false when nobody could.
inline bool release(unsigned begin, unsigned end, Wait what) {
  Block& b = block();
  unsigned waiting = 0;
  for (unsigned t = begin; t < end; ++t) waiting += b.fibers[t].wait == what ? 1 : 0;
  if (waiting != end - begin) return false;
  for (unsigned t = begin; t < end; ++t) b.fibers[t].wait = Wait::kNothing;
  return true;
}

// As far as it comes without the block's other warps.
inline void run_warp(unsigned begin, unsigned end) {
  Block& b = block();
  do {
    for (unsigned t = begin; t < end; ++t) {
      if (b.fibers[t].wait != Wait::kNothing) continue;
      b.current = t;
      go_to(b.fibers[t]);
    }
  } while (release(begin, end, Wait::kWarpLanes));
}

// Warps one after the other, now from the first and now from the last: what one expects of another without a barrier
// between them is not there.
inline void run_block() {
  Block& b = block();
  const auto n = static_cast<unsigned>(b.fibers.size()), n_warps = (n + kWarp - 1) / kWarp;
  for (bool backwards = false;; backwards = !backwards) {
    for (unsigned i = 0; i < n_warps; ++i) {
      const unsigned begin = (backwards ? n_warps - 1 - i : i) * kWarp;
      run_warp(begin, std::min(n, begin + kWarp));
    }
    const auto has_ended = [](const Fiber& fiber) { return fiber.wait == Wait::kEnded; };
    if (std::all_of(b.fibers.begin(), b.fibers.end(), has_ended)) return;
    if (!release(0, n, Wait::kBlock)) stop("threads wait at a barrier that others never reach");
  }
}

inline void start_block(std::size_t shared_bytes) {
  constexpr std::size_t kStack = std::size_t{64} << 10U;
  Block& b = block();
  // Whole NaNs; allocated anew for each block and exactly as large as asked for, so that AddressSanitizer sees
  // overruns.
  b.dynamic_shared = std::make_unique_for_overwrite<unsigned char[]>(shared_bytes);
  std::memset(b.dynamic_shared.get(), 0xff, shared_bytes);
  for (unsigned t = 0; t < b.fibers.size(); ++t) {
    Fiber& fiber = b.fibers[t];
    if (!fiber.stack) fiber.stack = std::make_unique_for_overwrite<char[]>(kStack);
    fiber.index = {t % b.dim.x, t / b.dim.x % b.dim.y, t / (b.dim.x * b.dim.y)};
    fiber.wait = Wait::kNothing;
    fiber.started = false;
    fiber.n_shuffles = 0;
    if (!fiber.copies.empty() || !fiber.committed.empty())
      stop("a thread of the block before ended with copies under way");
    getcontext(&fiber.context);
    fiber.context.uc_stack = {.ss_sp = fiber.stack.get(), .ss_flags = 0, .ss_size = kStack};
    fiber.context.uc_link = &b.scheduler;
    makecontext(&fiber.context, enter, 0);
  }
}

inline void run_grid(dim3 grid, dim3 dim, std::size_t shared_bytes, std::function<void()> body) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || dim.x * dim.y * dim.z > 1024) {
    stop("no such launch is possible");
  }
  if (shared_bytes > (std::size_t{99} << 10U))
    stop("more shared memory than GPUs of compute capability 8.6 give a block");
  Block& b = block();
  ++n_launches();
  b.grid = grid;
  b.dim = dim;
  b.body = std::move(body);
  b.fibers = std::vector<Fiber>(dim.x * dim.y * dim.z);
  for (auto& shown : b.shown) shown.assign(b.fibers.size(), 0);
  for (auto& operands : b.operands) operands.assign(b.fibers.size(), {});
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        b.index = {x, y, z};
        start_block(shared_bytes);
        run_block();
      }
    }
  }
}

template <class T>
T shuffle(T value, unsigned mask, unsigned from_lane) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  if (mask != 0xffffffffU) stop("a shuffle names fewer lanes than a warp");
  Block& b = block();
  const unsigned self = b.current;
  auto& shown = b.shown[b.fibers[self].n_shuffles++ % 2];
  std::memcpy(&shown[self], &value, sizeof(T));
  wait_for(Wait::kWarpLanes);
  const unsigned from = self / kWarp * kWarp + from_lane % kWarp;
  if (from >= shown.size()) stop("a shuffle reads a lane that is not there");
  T result;
  std::memcpy(&result, &shown[from], sizeof(T));
  return result;
}

// --- what harness/attention/tensor_cores.h describes ---

// This lane's operands shown to its warp: those of lane 0, followed by the others'. Valid until the next but one.
inline const Operands* show(const Operands& own) {
  Block& b = block();
  const unsigned self = b.current;
  auto& shown = b.operands[b.fibers[self].n_shuffles++ % 2];
  shown[self] = own;
  wait_for(Wait::kWarpLanes);
  return shown.data() + self / kWarp * kWarp;
}

inline float half_of(std::uint32_t pair, unsigned which) {
  return std::bit_cast<float>(which == 0 ? pair << 16U : pair & 0xffff0000U);
}

inline void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  const Operands* lanes = show({{a[0], a[1], a[2], a[3]}, {b0, b1}, nullptr});
  const unsigned lane = block().current % kWarp;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    float sum = 0;
    for (unsigned k = 0; k < 16; ++k) {
      const Operands &left = lanes[row % 8 * 4 + k % 8 / 2], &right = lanes[column * 4 + k % 8 / 2];
      sum += half_of(left.a[row / 8 + k / 8 * 2], k % 2) * half_of(right.b[k / 8], k % 2);
    }
    c[i] += sum;
  }
}

inline void load_matrices_as(std::uint32_t (&to)[4], const void* row, bool transposed) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) stop("a row of a matrix is not aligned to 16 bytes");
  const Operands* lanes = show({{}, {}, row});
  const unsigned lane = block().current % kWarp;
  for (unsigned m = 0; m < 4; ++m) {
    std::uint16_t pair[2];
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned in_group = lane % 4 * 2 + i, from_row = transposed ? in_group : lane / 4,
                     column = transposed ? lane / 4 : in_group;
      std::memcpy(&pair[i], static_cast<const char*>(lanes[m * 8 + from_row].row) + column * 2, 2);
    }
    to[m] = pair[0] | static_cast<std::uint32_t>(pair[1]) << 16U;
  }
  // On a GPU the whole warp has read before any of its lanes goes on.
  wait_for(Wait::kWarpLanes);
}
inline void load_matrices(std::uint32_t (&to)[4], const void* row) {
  load_matrices_as(to, row, false);
}
inline void load_matrices_transposed(std::uint32_t (&to)[4], const void* row) {
  load_matrices_as(to, row, true);
}

inline void copy_async(void* to, const void* from, bool there) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16 != 0 || (there && reinterpret_cast<std::uintptr_t>(from) % 16 != 0)) {
    stop("a copy is not aligned to 16 bytes");
  }
  block().fibers[block().current].copies.push_back({to, there ? from : nullptr});
}
inline void commit_copies() {
  Fiber& fiber = block().fibers[block().current];
  fiber.committed.insert(fiber.committed.end(), fiber.copies.begin(), fiber.copies.end());
  fiber.copies.clear();
}
inline void wait_for_copies() {
  Fiber& fiber = block().fibers[block().current];
  for (const Copy& copy : fiber.committed) {
    if (copy.from == nullptr) {
      std::memset(copy.to, 0, 16);
    } else {
      std::memcpy(copy.to, copy.from, 16);
    }
  }
  fiber.committed.clear();
}

inline float exp2_fast(float x) {
  return std::exp2(x);
}

}  // namespace kvc::emulation

#define threadIdx (::kvc::emulation::block().fibers[::kvc::emulation::block().current].index)
#define blockIdx (::kvc::emulation::block().index)
#define blockDim (::kvc::emulation::block().dim)
#define gridDim (::kvc::emulation::block().grid)

inline void __syncthreads() {
  ::kvc::emulation::wait_for(::kvc::emulation::Wait::kBlock);
}
inline void __syncwarp() {
  ::kvc::emulation::wait_for(::kvc::emulation::Wait::kWarpLanes);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, unsigned lane_mask) {
  return ::kvc::emulation::shuffle(value, mask, (threadIdx.x % 32U) ^ lane_mask);
}
template <class T>
T __shfl_sync(unsigned mask, T value, unsigned lane) {
  return ::kvc::emulation::shuffle(value, mask, lane);
}

namespace kvc::emulation {

template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t,
                   const Arguments&... arguments) {
  run_grid(grid, block, shared_bytes, [&] { kernel(arguments...); });
  return nullptr;
}

namespace counting {

inline std::function<void()>& seen() {
  static std::function<void()> told;
  return told;
}

// Internal to each file that counts: others run what this one does not.
template <class... Parameters, class... Arguments>
const char* launch(void (*)(Parameters...), dim3, dim3, std::size_t, cudaStream_t, const Arguments&...) {
  if (seen()) seen()();
  return nullptr;
}

}  // namespace counting

}  // namespace kvc::emulation
