#include "harness/core/printable.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/core/utf8.h"

namespace kvc {

std::string printable(std::string_view text) {
  constexpr size_t kMost = 80;
  std::string out;
  size_t at = 0;
  while (at < text.size() && at < kMost) {
    const size_t length = utf8_length(text, at);
    const auto byte = static_cast<unsigned char>(text[at]);
    if (length == 0 || byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
      ++at;
    } else {
      out += text.substr(at, length);
      at += length;
    }
  }
  return at < text.size() ? out + "..." : out;
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
