// Errors of a template: what, and the line of the template's text.
#pragma once

#include <fmt/format.h>

#include <string>

#include "harness/core/error.h"

namespace kvc::jinja {

inline constexpr const char* kWayOut =
    "give --chat-template NAME, in a sweep file write 'chat_template: NAME' at the model; built in: chatml, llama2, "
    "llama3, mistral";

// `where`: the template's file and key.
[[noreturn]] inline void fail(const std::string& fact, const std::string& where, int line) {
  throw Error(ErrorKind::kData, fact, fmt::format("{}:{}", where, line), kWayOut);
}

// For messages: no longer than a line, no control characters.
inline std::string excerpt(std::string_view text) {
  std::string result(text.substr(0, 60));
  for (char& c : result) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  return text.size() > 60 ? result + "..." : result;
}

}  // namespace kvc::jinja
