// Marks a hot function so that the compiler makes one version for each width of the processor's vectors and picks one
// at start.
#pragma once

// Sanitizers cannot run the resolver that picks, and other compilers have no such attribute: one plain version there.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define KVC_VECTOR_VERSIONS 1
#define KVC_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KVC_VECTOR_CLONES
#endif

// Bodies that such a function shares between element types: they take over its vector width only when inlined.
#define KVC_INLINE inline __attribute__((always_inline))

#include <bit>
#include <cstdint>

namespace kvc::vector {

// One bfloat16 as stored.
using Bf16 = std::uint16_t;

KVC_INLINE float load(const float* p) {
  return *p;
}
KVC_INLINE float load(const Bf16* p) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(*p) << 16U);
}

KVC_INLINE void store(float* p, float x) {
  *p = x;
}
// Rounds to nearest, ties to even; NaN stays NaN.
KVC_INLINE void store(Bf16* p, float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = bits + 0x7fffU + ((bits >> 16U) & 1U);
  *p = static_cast<Bf16>((x == x ? rounded : 0x7fc00000U) >> 16U);
}

}  // namespace kvc::vector
