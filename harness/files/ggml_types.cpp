#include "harness/files/ggml_types.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <span>

namespace kvc {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF values are read in place");

constexpr int64_t kSuper = 256;  // values of a K-quant block

template <class T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

// IEEE 754 binary16: 5 bits of exponent, 10 of fraction. Exact.
float load_half(const uint8_t* at) {
  const auto bits = load<uint16_t>(at);
  const uint32_t sign = (bits & 0x8000U) << 16U, rest = bits & 0x7fffU;
  // The fraction moved under float32's exponent, which is 112 larger; subnormals come out of the product with 2^112.
  const float value = std::bit_cast<float>(rest << 13U) * 0x1p112F;
  const uint32_t out = rest >= 0x7c00U ? 0x7f800000U | (rest & 0x3ffU) << 13U : std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>(sign | out);
}

void decode_f32(const uint8_t* block, float* out) {
  *out = load<float>(block);
}
void decode_f16(const uint8_t* block, float* out) {
  *out = load_half(block);
}
void decode_bf16(const uint8_t* block, float* out) {
  *out = std::bit_cast<float>(static_cast<uint32_t>(load<uint16_t>(block)) << 16U);
}

// 32 values; the low half-bytes are values 0..15, the high ones 16..31. d, m:
// scale and offset of the block.
void decode_q4_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (int j = 0; j < 16; ++j) {
    const int byte = block[2 + j];
    out[j] = static_cast<float>((byte & 15) - 8) * d;
    out[j + 16] = static_cast<float>((byte >> 4) - 8) * d;
  }
}

void decode_q4_1(const uint8_t* block, float* out) {
  const float d = load_half(block), m = load_half(block + 2);
  for (int j = 0; j < 16; ++j) {
    const int byte = block[4 + j];
    out[j] = static_cast<float>(byte & 15) * d + m;
    out[j + 16] = static_cast<float>(byte >> 4) * d + m;
  }
}

// As Q4, with the fifth bits of all 32 values in one word.
void decode_q5_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const auto high = load<uint32_t>(block + 2);
  for (int j = 0; j < 16; ++j) {
    const int byte = block[6 + j];
    const int low_bit = static_cast<int>(high >> j & 1), high_bit = static_cast<int>(high >> (j + 16) & 1);
    out[j] = static_cast<float>(((byte & 15) | low_bit << 4) - 16) * d;
    out[j + 16] = static_cast<float>(((byte >> 4) | high_bit << 4) - 16) * d;
  }
}

void decode_q5_1(const uint8_t* block, float* out) {
  const float d = load_half(block), m = load_half(block + 2);
  const auto high = load<uint32_t>(block + 4);
  for (int j = 0; j < 16; ++j) {
    const int byte = block[8 + j];
    const int low_bit = static_cast<int>(high >> j & 1), high_bit = static_cast<int>(high >> (j + 16) & 1);
    out[j] = static_cast<float>((byte & 15) | low_bit << 4) * d + m;
    out[j + 16] = static_cast<float>((byte >> 4) | high_bit << 4) * d + m;
  }
}

void decode_q8_0(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(static_cast<int8_t>(block[2 + j])) * d;
}

// The K-quants: 256 values in sub-blocks of 16 or 32, each with its own scale
// (and offset) in units of d (and dmin).

// 16 bytes of (offset << 4 | scale), 64 of 2-bit values, d, dmin.
void decode_q2_k(const uint8_t* block, float* out) {
  const uint8_t* scales = block;
  const uint8_t* quants = block + 16;
  const float d = load_half(block + 80), dmin = load_half(block + 82);
  for (int i = 0; i < kSuper; ++i) {
    // 128 values share 32 bytes, a bit pair each; a sub-block is 16 neighbours.
    const int half = i / 128, pair = i / 32 % 4, byte = i % 32;
    const int scale = scales[i / 16];
    const int quant = quants[half * 32 + byte] >> (2 * pair) & 3;
    out[i] = d * static_cast<float>(scale & 15) * static_cast<float>(quant) - dmin * static_cast<float>(scale >> 4);
  }
}

// 32 bytes of third bits, 64 of low bit pairs, 12 of 6-bit scales, d.
void decode_q3_k(const uint8_t* block, float* out) {
  const uint8_t* third_bits = block;
  const uint8_t* quants = block + 32;
  const uint8_t* packed = block + 96;
  const float d = load_half(block + 108);
  std::array<float, 16> scales;
  for (int s = 0; s < 16; ++s) {
    // Low four bits: half-bytes of bytes 0..7; upper two: bit pairs of
    // bytes 8..11.
    const int low = s < 8 ? packed[s] & 15 : packed[s - 8] >> 4;
    const int high = packed[8 + s % 4] >> (2 * (s / 4)) & 3;
    scales[s] = d * static_cast<float>((low | high << 4) - 32);
  }
  for (int i = 0; i < kSuper; ++i) {
    const int half = i / 128, pair = i / 32 % 4, byte = i % 32;
    const int low = quants[half * 32 + byte] >> (2 * pair) & 3;
    const int third = third_bits[byte] >> (i / 32) & 1;  // a cleared bit takes 4 off
    out[i] = scales[i / 16] * static_cast<float>(low - (third == 1 ? 0 : 4));
  }
}

// Sub-block s of Q4_K and Q5_K: 6-bit scale and offset, packed in 12 bytes.
struct ScaleOffset {
  float scale, offset;
};
ScaleOffset scale_offset(const uint8_t* packed, int s) {
  if (s < 4) return {static_cast<float>(packed[s] & 63), static_cast<float>(packed[s + 4] & 63)};
  return {static_cast<float>((packed[s + 4] & 15) | (packed[s - 4] >> 6) << 4),
          static_cast<float>((packed[s + 4] >> 4) | (packed[s] >> 6) << 4)};
}

// d, dmin, 12 bytes of scales, 128 of half-bytes: each run of 32 bytes holds
// sub-blocks 2k (low) and 2k + 1 (high).
void decode_q4_k(const uint8_t* block, float* out) {
  const float d = load_half(block), dmin = load_half(block + 2);
  for (int s = 0; s < 8; ++s) {
    const ScaleOffset sub = scale_offset(block + 4, s);
    const float scale = d * sub.scale, offset = dmin * sub.offset;
    const uint8_t* quants = block + 16 + s / 2 * 32;
    const int shift = s % 2 * 4;
    for (int j = 0; j < 32; ++j) out[s * 32 + j] = scale * static_cast<float>(quants[j] >> shift & 15) - offset;
  }
}

// As Q4_K, with 32 bytes of fifth bits (bit s of byte j) before the half-bytes.
void decode_q5_k(const uint8_t* block, float* out) {
  const float d = load_half(block), dmin = load_half(block + 2);
  const uint8_t* fifth = block + 16;
  for (int s = 0; s < 8; ++s) {
    const ScaleOffset sub = scale_offset(block + 4, s);
    const float scale = d * sub.scale, offset = dmin * sub.offset;
    const uint8_t* quants = block + 48 + s / 2 * 32;
    const int shift = s % 2 * 4;
    for (int j = 0; j < 32; ++j) {
      const int quant = (quants[j] >> shift & 15) | (fifth[j] >> s & 1) << 4;
      out[s * 32 + j] = scale * static_cast<float>(quant) - offset;
    }
  }
}

// 128 bytes of low half-bytes, 64 of high bit pairs, 16 signed scales, d.
void decode_q6_k(const uint8_t* block, float* out) {
  const float d = load_half(block + 208);
  for (int run = 0; run < 8; ++run) {  // 32 values each, two scales
    const int half = run / 4, quarter = run % 4;
    const uint8_t* low = block + half * 64 + quarter % 2 * 32;
    const uint8_t* high = block + 128 + half * 32;
    const uint8_t* scales = block + 192 + run * 2;
    for (int j = 0; j < 32; ++j) {
      const int quant = (low[j] >> (quarter / 2 * 4) & 15) | (high[j] >> (2 * quarter) & 3) << 4;
      out[run * 32 + j] = d * static_cast<float>(static_cast<int8_t>(scales[j / 16])) * static_cast<float>(quant - 32);
    }
  }
}

// The IQ4 kinds: a half-byte names one of 16 levels that lie denser around 0.
constexpr std::array<float, 16> kLevels = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// 32 values: d, 16 bytes; half-bytes as in Q4_0.
void decode_iq4_nl(const uint8_t* block, float* out) {
  const float d = load_half(block);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * kLevels[block[2 + j] & 15];
    out[j + 16] = d * kLevels[block[2 + j] >> 4];
  }
}

// 256 values: d, 2 bytes of high bit pairs and 4 of low half-bytes of eight
// 6-bit scales, 128 of half-bytes: each run of 16 bytes is one sub-block as in
// IQ4_NL.
void decode_iq4_xs(const uint8_t* block, float* out) {
  const float d = load_half(block);
  const auto high = load<uint16_t>(block + 2);
  for (int s = 0; s < 8; ++s) {
    const int low = block[4 + s / 2] >> (s % 2 * 4) & 15;
    const float scale = d * static_cast<float>((low | (high >> (2 * s) & 3) << 4) - 32);
    const uint8_t* quants = block + 8 + s * 16;
    for (int j = 0; j < 16; ++j) {
      out[s * 32 + j] = scale * kLevels[quants[j] & 15];
      out[s * 32 + 16 + j] = scale * kLevels[quants[j] >> 4];
    }
  }
}

template <void (*decode_block)(const uint8_t*, float*), int64_t values, int64_t bytes>
void decode_all(const std::byte* source, int64_t blocks, float* out) {
  const auto* block = reinterpret_cast<const uint8_t*>(source);
  for (int64_t b = 0; b < blocks; ++b) decode_block(block + b * bytes, out + b * values);
}

template <void (*decode_block)(const uint8_t*, float*), int64_t values, int64_t bytes>
constexpr GgmlType type(uint32_t id, const char* name) {
  return {id, name, values, bytes, &decode_all<decode_block, values, bytes>};
}

constexpr GgmlType kTypes[] = {
    type<decode_f32, 1, 4>(0, "F32"),
    type<decode_f16, 1, 2>(1, "F16"),
    type<decode_bf16, 1, 2>(30, "BF16"),
    type<decode_q4_0, 32, 18>(2, "Q4_0"),
    type<decode_q4_1, 32, 20>(3, "Q4_1"),
    type<decode_q5_0, 32, 22>(6, "Q5_0"),
    type<decode_q5_1, 32, 24>(7, "Q5_1"),
    type<decode_q8_0, 32, 34>(8, "Q8_0"),
    type<decode_q2_k, kSuper, 84>(10, "Q2_K"),
    type<decode_q3_k, kSuper, 110>(11, "Q3_K"),
    type<decode_q4_k, kSuper, 144>(12, "Q4_K"),
    type<decode_q5_k, kSuper, 176>(13, "Q5_K"),
    type<decode_q6_k, kSuper, 210>(14, "Q6_K"),
    type<decode_iq4_nl, 32, 18>(20, "IQ4_NL"),
    type<decode_iq4_xs, kSuper, 136>(23, "IQ4_XS"),
};

// ggml's names by number, for messages about types that are not decoded.
constexpr const char* kNames[] = {
    "F32",    "F16",      "Q4_0",     "Q4_1",     "Q4_2",  "Q4_3",  "Q5_0",       "Q5_1",       "Q8_0",       "Q8_1",
    "Q2_K",   "Q3_K",     "Q4_K",     "Q5_K",     "Q6_K",  "Q8_K",  "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",    "IQ1_S",
    "IQ4_NL", "IQ3_S",    "IQ2_S",    "IQ4_XS",   "I8",    "I16",   "I32",        "I64",        "F64",        "IQ1_M",
    "BF16",   "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0", "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4"};

}  // namespace

const GgmlType* find_ggml_type(uint32_t id) {
  const auto* found = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const GgmlType& t) { return t.id == id; });
  return found == std::end(kTypes) ? nullptr : found;
}

std::string ggml_type_name(uint32_t id) {
  return id < std::size(kNames) ? kNames[id] : fmt::format("type {}", id);
}

std::string supported_ggml_types() {
  std::string list;
  for (const GgmlType& t : kTypes) list += (list.empty() ? "" : ", ") + std::string(t.name);
  return list;
}

}  // namespace kvc
