// Just enough UTF-8: where valid text ends, what stands for the rest, and the byte alphabet of byte-level vocabularies.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kvc {

// Length in bytes of the well-formed character that starts at text[offset] (no surrogates, no overlong forms, at most
// U+10FFFF), 0 when there is none. offset < text.size().
inline size_t utf8_length(std::string_view text, size_t offset) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[offset + i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0 || text.size() - offset < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return 0;
  }
  const unsigned second = byte(1);
  const bool outside = (lead == 0xE0 && second < 0xA0) || (lead == 0xED && second >= 0xA0) ||
                       (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second >= 0x90);
  return outside ? 0 : length;
}

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";
// How SentencePiece vocabularies write a space: U+2581.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";
inline constexpr char32_t kSpaceMarkPoint = 0x2581;

// Where no well-formed character starts: the longest run of bytes that starts one, at least one byte; Unicode replaces
// it by one U+FFFD. can_continue: more bytes could complete it.
struct Utf8Start {
  size_t length;
  bool can_continue;
};
Utf8Start utf8_start(std::string_view text, size_t offset);

// Byte-level vocabularies spell each byte as one printable character (Radford et al. 2019, GPT-2's bytes_to_unicode):
// printable Latin-1 stands for itself, the other 68 bytes are U+0100 and up in order.
inline const std::array<char32_t, 256>& byte_alphabet() {
  static const std::array<char32_t, 256> alphabet = [] {
    std::array<char32_t, 256> table{};
    char32_t next = 0x100;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      table[b] = printable ? b : next++;
    }
    return table;
  }();
  return alphabet;
}

// The spelling of one byte in the byte alphabet, as UTF-8 (one or two bytes).
inline std::string spell_byte(unsigned char byte) {
  const char32_t c = byte_alphabet()[byte];
  if (c < 0x80) return std::string(1, static_cast<char>(c));
  return {static_cast<char>(0xC0U | (c >> 6U)), static_cast<char>(0x80U | (c & 0x3FU))};
}

// The bytes that `spelling` stands for; nullopt when a character is not of the byte alphabet.
std::optional<std::string> bytes_of_spelling(std::string_view spelling);

}  // namespace kvc
