// Products of narrow panels that fit the processor's registers: the building blocks of code that makes or reads
// attention weights without an (n,T) matrix.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/core/vector_clones.h"

namespace kvc::panels {

constexpr int64_t kWidth = 8;   // floats in a vector of 256 bits; narrower processors take several for one
constexpr int64_t kPanel = 16;  // columns of a panel
constexpr int64_t kRows = 6;    // rows of a product at a time: with 16 columns their sums fill the registers

using Floats = float __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));
using Integers = std::int32_t __attribute__((vector_size(4 * kWidth)));

// Vectors go by reference: by value they would need the wider registers in every version.

// x = e^x for x <= 0, to 2 units in the last place; 0 up to -87, NaN of NaN.
KVC_INLINE void exponential(Floats& x) {
  const Integers hidden = x <= -87.0F;
  const Floats bounded = hidden ? Floats{} - 87.0F : x;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Floats shifted = bounded * 1.44269504F + kRound;
  const Floats whole = shifted - kRound;
  const Floats r = (bounded - whole * 0.693145752F) - whole * 1.42860677e-6F;  // ln 2 in two parts
  Floats series = Floats{} + 1.0F / 5040;  // of e^r, |r| <= ln 2 / 2: the next term is below 6e-9
  for (const float factor : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F})
    series = series * r + factor;
  const Integers power = reinterpret_cast<Integers>(shifted) << 23;  // times 2^whole: added to the exponent
  x = reinterpret_cast<Floats>((reinterpret_cast<Integers>(series) + power) & ~hidden) + (bounded - bounded);
}

// a (length, 6) and b (length, 16), both contiguous: six rows of out, `stride` apart, become a^T b, or that is added.
void multiply(const float* a, const float* b, int64_t length, float* out, int64_t stride, bool add);

// Adds A^T A to `gram`, rows from `rows` A (n,t) that lie `stride` apart; only what is on or above the diagonal is
// whole. gram (padded(t, 6), padded(t, 16)) contiguous, its padding zero before and after. n t^2 flops. The sums of 480
// rows are added to one another.
void add_gram(const float* rows, int64_t stride, int64_t n, int64_t t, float* gram);

// x / unit, rounded up.
int64_t parts(int64_t x, int64_t unit);

// (rows, d) as groups of `group` rows, each (d, group): zeros behind the last row.
at::Tensor packed(const at::Tensor& rows, int64_t group);

}  // namespace kvc::panels
