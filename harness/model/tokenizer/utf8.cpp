#include "harness/model/tokenizer/utf8.h"

namespace kvc {

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
