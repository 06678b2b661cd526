#include "harness/core/printable.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/core/utf8.h"

namespace kvc {

namespace {

// What moves a terminal's cursor or turns the direction of writing: C0, DEL, C1 (U+0080 to U+009F), U+200E, U+200F,
// U+202A to U+202E, U+2066 to U+2069.
bool steers(std::string_view character) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(character[i]); };
  if (character.size() == 1) return byte(0) < 0x20 || byte(0) == 0x7F;
  if (character.size() == 2) return byte(0) == 0xC2 && byte(1) < 0xA0;
  if (character.size() != 3 || byte(0) != 0xE2) return false;
  if (byte(1) == 0x80) return (byte(2) >= 0xAA && byte(2) <= 0xAE) || byte(2) == 0x8E || byte(2) == 0x8F;
  return byte(1) == 0x81 && byte(2) >= 0xA6 && byte(2) <= 0xA9;
}

std::string made_printable(std::string_view text, size_t most, bool lines) {
  std::string out;
  size_t at = 0;
  while (at < text.size() && at < most) {
    const size_t length = std::max<size_t>(utf8_length(text, at), 1);
    const std::string_view character = text.substr(at, length);
    at += length;
    if (lines && character == "\n") {
      out += '\n';
    } else if (lines && character == "\t") {
      out += ' ';
    } else if (lines && character == "\r" && text.substr(at, 1) == "\n") {
      continue;
    } else if (utf8_length(character, 0) == 0 || steers(character)) {
      for (const char c : character) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += character;
    }
  }
  return at < text.size() ? out + "..." : out;
}

}  // namespace

std::string printable(std::string_view text) {
  return made_printable(text, 80, /*lines=*/false);
}

std::string printable_lines(std::string_view text, size_t most) {
  return made_printable(text, most, /*lines=*/true);
}

std::string json_fault(std::string_view message) {
  constexpr std::string_view kPlace = "parse error at ", kFault = " - ";
  const size_t place = message.find(kPlace), colon = message.find(':', place), fault = message.find(kFault);
  if (place == std::string_view::npos || colon == std::string_view::npos) return printable(message);
  const size_t from = fault == std::string_view::npos ? colon + 2 : fault + kFault.size();
  return fmt::format("{}: {}", message.substr(place + kPlace.size(), colon - place - kPlace.size()),
                     printable(message.substr(std::min(from, message.size()))));
}

}  // namespace kvc
