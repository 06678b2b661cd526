#include "harness/report/compact_json.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

#include "harness/core/utf8.h"

namespace kvc {

void append_compact_string(std::string_view value, std::string& text) {
  text += '"';
  for (size_t at = 0; at < value.size();) {
    const auto c = static_cast<unsigned char>(value[at]);
    if (c >= 0x80) {
      const size_t length = utf8_length(value, at);
      if (length == 0) {
        text += "\\ufffd";
        ++at;
      } else {
        text.append(value, at, length);
        at += length;
      }
      continue;
    }
    ++at;
    if (c == '"' || c == '\\') {
      text += '\\';
      text += static_cast<char>(c);
    } else if (c == '\n') {
      text += "\\n";
    } else if (c < 0x20 || c == '<' || c == 0x7F) {
      fmt::format_to(std::back_inserter(text), "\\u{:04x}", c);
    } else {
      text += static_cast<char>(c);
    }
  }
  text += '"';
}

void append_compact_json(const Json& value, std::string& text) {
  if (value.is_string()) {
    append_compact_string(value.get_ref<const std::string&>(), text);
  } else if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::isfinite(number)) {
      fmt::format_to(std::back_inserter(text), "{:.6g}", number);
    } else {
      text += "null";
    }
  } else if (value.is_array()) {
    text += '[';
    for (size_t i = 0; i < value.size(); ++i) {
      if (i > 0) text += ',';
      append_compact_json(value[i], text);
    }
    text += ']';
  } else if (value.is_object()) {
    text += '{';
    bool first = true;
    for (const auto& [name, item] : value.items()) {
      if (!first) text += ',';
      first = false;
      append_compact_string(name, text);
      text += ':';
      append_compact_json(item, text);
    }
    text += '}';
  } else {
    text += value.is_discarded() ? "null" : value.dump();
  }
}

}  // namespace kvc
