// float and bfloat16 loads and stores for multi-version functions (harness/core/vector_clones.h).
#pragma once

#include <bit>
#include <cstdint>

#include "harness/core/vector_clones.h"

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
