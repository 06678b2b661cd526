#include "harness/core/utf8.h"

namespace kvc {

Utf8Start utf8_start(std::string_view text, size_t offset) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(offset);
  const size_t wanted = lead < 0xC2 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 1;
  unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  size_t length = 1;
  while (length < wanted && offset + length < text.size() && byte(offset + length) >= low &&
         byte(offset + length) <= high) {
    ++length;
    low = 0x80;
    high = 0xBF;
  }
  return {length, length < wanted};
}

std::optional<std::string> bytes_of_spelling(std::string_view spelling) {
  static const std::array<std::int16_t, 0x180> byte_of = [] {
    std::array<std::int16_t, 0x180> table{};
    table.fill(-1);
    for (size_t b = 0; b < 256; ++b) table[byte_alphabet()[b]] = static_cast<std::int16_t>(b);
    return table;
  }();
  std::string bytes;
  for (size_t i = 0; i < spelling.size();) {
    const size_t length = utf8_length(spelling, i);
    if (length == 0 || length > 2) return std::nullopt;
    size_t c = static_cast<unsigned char>(spelling[i]);
    if (length == 2) c = ((c & 0x1FU) << 6U) | (static_cast<unsigned char>(spelling[i + 1]) & 0x3FU);
    if (c >= byte_of.size() || byte_of[c] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte_of[c]));
    i += length;
  }
  return bytes;
}

}  // namespace kvc
