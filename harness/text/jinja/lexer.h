// A template's text cut into tokens, white space around tags removed as Hugging Face's transformers sets up Jinja:
// trim_blocks and lstrip_blocks on, one newline at the end of the template dropped, \r\n and \r read as \n.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvc::jinja {

struct Token {
  enum class Kind : std::uint8_t {
    kText,         // outside of tags
    kOutputBegin,  // {{
    kOutputEnd,
    kTagBegin,  // {%
    kTagEnd,
    kName,
    kString,
    kInteger,
    kReal,
    kSign,  // operators and brackets
    kEnd,   // of the template; always the last token, and there only
  };
  Kind kind = Kind::kEnd;
  int line = 1;
  std::string text;  // of kText, kName, kSign; the value of kString
  int64_t integer = 0;
  double real = 0;
};

// Throws Error(kData): a tag, comment, string or bracket that is not closed, a character that begins no token, a number
// out of range, an escape that stands for no character, more than 512 KiB of text.
std::vector<Token> cut_tokens(const std::string& source, const std::string& where);

}  // namespace kvc::jinja
