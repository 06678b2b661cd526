// The few facts about code points that tokenizing needs beside what Oniguruma and utf8proc know.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace kvc {

// The code point of the well-formed character of `length` bytes at text[offset].
inline char32_t code_point_at(std::string_view text, size_t offset, size_t length) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[offset + i]); };
  if (length == 1) return byte(0);
  char32_t c = byte(0) & (0xFFU >> (length + 1));
  for (size_t i = 1; i < length; ++i) c = (c << 6U) | (byte(i) & 0x3FU);
  return c;
}

// Unicode's White_Space property.
bool is_white_space(char32_t c);

// The `tokenizers` package knows the letters, digits and marks of Unicode 16; the Oniguruma of a stable system may
// know those of Unicode 14. For a code point that came between: an older character of the same general category and the
// same number of UTF-8 bytes, to match expressions with; empty for all others.
std::string_view older_equivalent(char32_t c);

// Marks and parts of composed characters that are younger than the normalisation of `tokenizers` (Unicode 9): there
// they are neither moved nor joined, so neither are they here. Sequences of such characters are rare beyond measure.
bool is_inert_in_nfc(char32_t c);

}  // namespace kvc
