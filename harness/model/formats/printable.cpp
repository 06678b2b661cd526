#include "harness/model/formats/printable.h"

#include <fmt/format.h>

#include "harness/model/tokenizer/utf8.h"

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

}  // namespace kvc
