// The kernel itself, in GCC's vector extensions. Included once by each instruction set's source file, inside its own
// namespace and under its own target options, with
//   KVC_WIDTH               floats in a vector
//   KVC_TALL_TILE           rows of a register tile that is three vectors wide
//   KVC_PAIR_PRODUCT(a,b,c) c + the products of bfloat16 pairs a and b, optional
// It must not instantiate or inline anything of the standard library: the linker might keep this file's copy, compiled
// for this instruction set, for the whole program.
//
// Letters: S logits (n_keys, lanes), later the weights; O output (d, lanes). A register tile is `Rows` rows by `Nv`
// vectors of lanes.

#define KVC_INLINE [[gnu::always_inline]] static inline

using Floats = float __attribute__((vector_size(4 * KVC_WIDTH)));
using Words = std::uint32_t __attribute__((vector_size(4 * KVC_WIDTH)));
using Ints = std::int32_t __attribute__((vector_size(4 * KVC_WIDTH)));
using FloatsInMemory = float __attribute__((vector_size(4 * KVC_WIDTH), may_alias));
using WordsInMemory = std::uint32_t __attribute__((vector_size(4 * KVC_WIDTH), may_alias));
using IntsInMemory = std::int32_t __attribute__((vector_size(4 * KVC_WIDTH), may_alias));
using LooseWord = std::uint32_t __attribute__((may_alias));
using LooseFloat = float __attribute__((may_alias));

constexpr float kNothing = -__builtin_inff();

KVC_INLINE Floats load(const float* from) {
  return *reinterpret_cast<const FloatsInMemory*>(from);
}
KVC_INLINE void store(float* to, Floats x) {
  *reinterpret_cast<FloatsInMemory*>(to) = x;
}
KVC_INLINE Floats larger(Floats a, Floats b) {
  return a > b ? a : b;
}
KVC_INLINE Floats all(float x) {
  return x - Floats{};
}

KVC_INLINE float bits_as_float(std::uint32_t word) {
  float value;
  __builtin_memcpy(&value, &word, 4);
  return value;
}

// exp(x) for x <= 0, relative error below 2e-7; 0 below -87 (where float32 gives up normal numbers) and for -inf.
KVC_INLINE Floats exp_of_negative(Floats x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = x * 1.44269504F + kRound;
  const Floats n = shifted - kRound;
  const Floats r = (x - n * 0.693359375F) + n * 2.12194440e-4F;  // ln 2 in two parts, the first of few bits
  Floats p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = (p * r) * r + r + 1.0F;
  const Words exponent = (reinterpret_cast<Words>(shifted) - 0x4B400000U + 127U) << 23;
  const Floats result = p * reinterpret_cast<Floats>(exponent);
  return x > -87.0F ? result : Floats{};
}

// c + a b, where words are float32 or pairs of bfloat16.
template <bool Pairs>
KVC_INLINE Floats product(std::uint32_t a, Words b, Floats c) {
  if constexpr (!Pairs) {
    return bits_as_float(a) * reinterpret_cast<Floats>(b) + c;
  } else {
#ifdef KVC_PAIR_PRODUCT
    return KVC_PAIR_PRODUCT(a, b, c);
#else
    const Floats low = reinterpret_cast<Floats>(b << 16), high = reinterpret_cast<Floats>(b & 0xFFFF0000U);
    return bits_as_float(a & 0xFFFF0000U) * high + (bits_as_float(a << 16) * low + c);
#endif
  }
}

// tile[i][v] = sum_k a[i * row_step + k * depth_step] b[k, v]; b (depth, lanes).
template <int Rows, int Nv, bool Pairs>
KVC_INLINE void multiply(const LooseWord* a, std::int64_t row_step, std::int64_t depth_step, const LooseWord* b,
                         std::int64_t lanes, std::int64_t depth, Floats (&tile)[Rows][Nv]) {
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < Nv; ++v) tile[i][v] = Floats{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    Words row[Nv];
    for (int v = 0; v < Nv; ++v) row[v] = *reinterpret_cast<const WordsInMemory*>(b + k * lanes + v * KVC_WIDTH);
    const LooseWord* column = a + k * depth_step;
    for (int i = 0; i < Rows; ++i) {
      for (int v = 0; v < Nv; ++v) tile[i][v] = product<Pairs>(column[i * row_step], row[v], tile[i][v]);
    }
  }
}

// Rows of keys or values that are needed soon, [begin, begin + count) of n. Tiles walk down columns of many rows at
// once, which the processor's own prefetching does not follow.
KVC_INLINE void fetch_rows(const void* rows, std::int64_t words, std::int64_t begin, std::int64_t count,
                           std::int64_t n) {
  const auto* first = static_cast<const LooseWord*>(rows) + begin * words;
  const auto* last = static_cast<const LooseWord*>(rows) + (begin + count < n ? begin + count : n) * words;
  for (; first < last; first += 16) __builtin_prefetch(first);
}

// S of the keys [begin, begin + Rows): scaled, with bias.
template <int Rows, int Nv, bool Pairs>
KVC_INLINE void logits_tile(const CpuAttentionBlock& block, const LooseWord* queries, std::int64_t begin, float scale,
                            float* logits) {
  const std::int64_t words = Pairs ? block.head_dim / 2 : block.head_dim;
  Floats tile[Rows][Nv];
  multiply<Rows, Nv, Pairs>(static_cast<const LooseWord*>(block.keys) + begin * words, words, 1, queries, block.lanes,
                            words, tile);
  for (int i = 0; i < Rows; ++i) {
    const float bias = block.bias != nullptr ? block.bias[begin + i] : 0.0F;
    for (int v = 0; v < Nv; ++v) store(logits + ((begin + i) * Nv + v) * KVC_WIDTH, tile[i][v] * scale + bias);
  }
}

// Keys that a row does not see become -inf. Returns each row's largest logit.
template <int Nv>
KVC_INLINE void mask_and_largest(const std::int32_t* visible, std::int64_t n_keys, float* logits,
                                 Floats (&largest)[Nv]) {
  for (int v = 0; v < Nv; ++v) largest[v] = all(kNothing);
  for (std::int64_t j = 0; j < n_keys; ++j) {
    for (int v = 0; v < Nv; ++v) {
      float* at = logits + (j * Nv + v) * KVC_WIDTH;
      Floats x = load(at);
      if (visible != nullptr) {
        const Ints limit = *reinterpret_cast<const IntsInMemory*>(visible + v * KVC_WIDTH);
        x = limit > static_cast<std::int32_t>(j) ? x : all(kNothing);
        store(at, x);
      }
      largest[v] = larger(largest[v], x);
    }
  }
}

// exp(S - largest) in place of S; sums of the float32 weights. Pairs: rounded to bfloat16 (half up), rows 2 j and 2 j +
// 1 as row j.
template <int Nv, bool Pairs>
KVC_INLINE void weights(std::int64_t n_keys, const Floats (&largest)[Nv], float* logits, Floats (&total)[Nv]) {
  Floats shift[Nv];
  for (int v = 0; v < Nv; ++v) {
    shift[v] = largest[v] > all(kNothing) ? largest[v] : Floats{};  // -inf - -inf would be NaN
    total[v] = Floats{};
  }
  for (std::int64_t j = 0; j < n_keys; j += Pairs ? 2 : 1) {
    for (int v = 0; v < Nv; ++v) {
      const Floats first = exp_of_negative(load(logits + (j * Nv + v) * KVC_WIDTH) - shift[v]);
      total[v] += first;
      if constexpr (!Pairs) {
        store(logits + (j * Nv + v) * KVC_WIDTH, first);
      } else {
        Floats second = Floats{};
        if (j + 1 < n_keys) second = exp_of_negative(load(logits + ((j + 1) * Nv + v) * KVC_WIDTH) - shift[v]);
        total[v] += second;
        const Words low = (reinterpret_cast<Words>(first) + 0x8000U) >> 16;
        const Words high = (reinterpret_cast<Words>(second) + 0x8000U) & 0xFFFF0000U;
        store(logits + (j / 2 * Nv + v) * KVC_WIDTH, reinterpret_cast<Floats>(low | high));
      }
    }
  }
}

// How a state and what is added to it are weighed: both relative to the larger of their largest logits.
struct Blend {
  Floats old_weight, new_weight;
};

KVC_INLINE Blend blend_into(Floats new_largest, Floats new_total, float* largest, float* total) {
  const Floats old_largest = load(largest);
  const Floats both = larger(old_largest, new_largest);
  const Floats shift = both > all(kNothing) ? both : Floats{};
  const Blend blend{exp_of_negative(old_largest - shift), exp_of_negative(new_largest - shift)};
  store(largest, both);
  store(total, load(total) * blend.old_weight + new_total * blend.new_weight);
  return blend;
}

KVC_INLINE void blend_output(const Blend& blend, Floats added, float* output) {
  store(output, load(output) * blend.old_weight + added * blend.new_weight);
}

// Nv vectors of lanes, from `lane` on.
template <int Nv, bool Pairs>
[[gnu::noinline]] static void attend_lanes(const CpuAttentionBlock& block, std::int64_t lane,
                                           const CpuAttentionState& state) {
  constexpr int kRows = Nv == 3 ? KVC_TALL_TILE : 8;
  const std::int64_t d = block.head_dim, n_keys = block.n_keys, lanes = block.lanes;
  const auto* queries = static_cast<const LooseWord*>(block.queries) + lane;
  const float scale = 1.0F / __builtin_sqrtf(static_cast<float>(d));
  std::int64_t j = 0;
  const std::int64_t words = Pairs ? d / 2 : d;
  for (; j + kRows <= n_keys; j += kRows) {
    if (lane == 0) {
      fetch_rows(block.keys, words, j + kRows, kRows, n_keys);
      fetch_rows(block.values, words, j, kRows, n_keys);
    }
    logits_tile<kRows, Nv, Pairs>(block, queries, j, scale, block.scratch);
  }
  for (; j < n_keys; ++j) logits_tile<1, Nv, Pairs>(block, queries, j, scale, block.scratch);

  Floats largest[Nv], total[Nv];
  mask_and_largest<Nv>(block.visible != nullptr ? block.visible + lane : nullptr, n_keys, block.scratch, largest);
  weights<Nv, Pairs>(n_keys, largest, block.scratch, total);
  Blend blend[Nv];
  for (int v = 0; v < Nv; ++v) {
    const std::int64_t at = lane + v * KVC_WIDTH;
    blend[v] = blend_into(largest[v], total[v], state.largest + at, state.total + at);
  }

  const auto* values = static_cast<const LooseWord*>(block.values);
  const auto* weight_words = reinterpret_cast<const LooseWord*>(block.scratch);
  const std::int64_t depth = Pairs ? (n_keys + 1) / 2 : n_keys;
  for (std::int64_t c = 0; c < d; c += kRows) {
    Floats tile[kRows][Nv];
    multiply<kRows, Nv, Pairs>(values + c, 1, d, weight_words, Nv * KVC_WIDTH, depth, tile);
    for (int i = 0; i < kRows; ++i) {
      for (int v = 0; v < Nv; ++v) {
        blend_output(blend[v], tile[i][v], state.output + (c + i) * lanes + lane + v * KVC_WIDTH);
      }
    }
  }
}

template <bool Pairs>
static void attend(const CpuAttentionBlock& block, const CpuAttentionState& state) {
  std::int64_t lane = 0;
  for (; lane + 3 * KVC_WIDTH <= block.lanes; lane += 3 * KVC_WIDTH) attend_lanes<3, Pairs>(block, lane, state);
  if (block.lanes - lane == 2 * KVC_WIDTH) attend_lanes<2, Pairs>(block, lane, state);
  if (block.lanes - lane == KVC_WIDTH) attend_lanes<1, Pairs>(block, lane, state);
}

static void combine(const CpuAttentionState& other, std::int64_t lanes, std::int64_t head_dim,
                    const CpuAttentionState& state) {
  for (std::int64_t lane = 0; lane < lanes; lane += KVC_WIDTH) {
    const Blend blend =
        blend_into(load(other.largest + lane), load(other.total + lane), state.largest + lane, state.total + lane);
    for (std::int64_t c = 0; c < head_dim; ++c) {
      blend_output(blend, load(other.output + c * lanes + lane), state.output + c * lanes + lane);
    }
  }
}

// Words of a row: float32, pairs of bfloat16, or bfloat16 widened to float32.
template <bool Bfloat16, bool Pairs>
static void pack_queries(const void* const* rows, std::int64_t n_rows, std::int64_t lanes, std::int64_t head_dim,
                         void* words) {
  auto* out = static_cast<LooseWord*>(words);
  const std::int64_t n_words = Pairs ? head_dim / 2 : head_dim;
  for (std::int64_t i = 0; i < lanes; ++i) {
    for (std::int64_t k = 0; k < n_words; ++k) {
      std::uint32_t word = 0;
      if (i < n_rows) {
        if constexpr (Bfloat16 && !Pairs) {
          word = std::uint32_t{static_cast<const std::uint16_t*>(rows[i])[k]} << 16;
        } else {
          word = static_cast<const LooseWord*>(rows[i])[k];
        }
      }
      out[k * lanes + i] = word;
    }
  }
}

static void widen(const void* elements, std::int64_t n_keys, std::int64_t head_dim, void* words) {
  const auto* in = static_cast<const std::uint16_t*>(elements);
  auto* out = static_cast<std::uint32_t*>(words);
  for (std::int64_t i = 0; i < n_keys * head_dim; ++i) out[i] = std::uint32_t{in[i]} << 16;
}

static void pair_keys(const void* elements, std::int64_t n_keys, std::int64_t head_dim, void* words) {
  auto* out = static_cast<std::uint32_t*>(words);
  for (std::int64_t j = 0; j < n_keys; j += 2) {
    const auto* first = static_cast<const std::uint16_t*>(elements) + j * head_dim;
    const auto* second = first + head_dim;
    if (j + 1 < n_keys) {
      for (std::int64_t c = 0; c < head_dim; ++c) *out++ = std::uint32_t{first[c]} | std::uint32_t{second[c]} << 16;
    } else {
      for (std::int64_t c = 0; c < head_dim; ++c) *out++ = first[c];
    }
  }
}

constexpr CpuAttentionKernel float32_kernel(CpuLevel level) {
  return {level, false, false, KVC_WIDTH, pack_queries<false, false>, nullptr, nullptr, attend<false>, combine};
}

constexpr CpuAttentionKernel widening_kernel(CpuLevel level) {
  return {level, true, false, KVC_WIDTH, pack_queries<true, false>, widen, widen, attend<false>, combine};
}

constexpr CpuAttentionKernel pairs_kernel(CpuLevel level) {
  return {level, true, true, KVC_WIDTH, pack_queries<true, true>, nullptr, pair_keys, attend<true>, combine};
}
