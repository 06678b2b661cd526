#include "harness/text/tokenizer/expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "harness/core/error.h"
#include "harness/core/utf8.h"
#include "harness/text/tokenizer/unicode.h"

namespace kvc {
namespace {

constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr size_t kMaxBytes = 1U << 14U;
constexpr size_t kMaxGroups = 50;
constexpr int kMostRepeats = 1000;

constexpr std::array<std::string_view, 37> kCategories = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co", "Cs", "Cn"};

// Letter pairs that one character folds to (sharp s, ligatures).
constexpr std::array<std::string_view, 5> kFolded = {"ss", "ff", "fi", "fl", "st"};

class Translator {
 public:
  Translator(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  std::string translate() {
    if (text_.size() > kMaxBytes) refuse(fmt::format("an expression of {} bytes", text_.size()));
    for (size_t i = 0; i < text_.size();) {
      const size_t length = utf8_length(text_, i);
      if (length == 0) refuse("a byte that is no UTF-8");
      i += length;
    }
    while (at_ < text_.size()) item();
    if (!ignores_case_.empty()) refuse("a group that is not closed");
    return out_;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorKind::kData, fmt::format("the pre-tokenizer's expression has {} at byte {}", what, at_), where_,
                "only what Llama's and Qwen's expressions use is supported; take the GGUF form of the model");
  }

  bool peek(std::string_view s) const { return text_.substr(at_).starts_with(s); }
  bool skip(std::string_view s) {
    if (!peek(s)) return false;
    at_ += s.size();
    return true;
  }
  char32_t take() {
    if (at_ >= text_.size()) refuse("an end too early");
    const size_t length = utf8_length(text_, at_);
    const char32_t c = code_point_at(text_, at_, length);
    at_ += length;
    return c;
  }

  static std::string literal(char32_t c) { return fmt::format("\\x{{{:x}}}", static_cast<std::uint32_t>(c)); }
  bool ignores_case() const { return !ignores_case_.empty() && ignores_case_.back(); }

  // One thing and the quantifier behind it.
  void item() {
    const bool follows_letter = std::exchange(after_letter_, false);
    if (open_group()) return;
    if (skip(")")) {
      if (ignores_case_.empty()) refuse("a ')' too many");
      ignores_case_.pop_back();
      out_ += ")";
    } else if (skip("|")) {
      out_ += "|";
      return;
    } else if (peek("[")) {
      out_ += character_class();
    } else if (skip(".")) {
      out_ += R"([^\x{a}])";
    } else if (skip("^")) {
      out_ += "(?m:^)";
      return;
    } else if (skip("$")) {
      out_ += "(?m:$)";
      return;
    } else if (peek("\\")) {
      escape();
    } else {
      letter(follows_letter);
    }
    quantifier();
  }

  void letter(bool follows_letter) {
    if (peek("*") || peek("+") || peek("?")) refuse("a quantifier of nothing");
    const char32_t c = take();
    if (ignores_case()) {
      if (c >= 0x80) refuse("a character beyond ASCII where case is ignored");
      const char lower = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
      const std::string pair = {last_letter_, lower};
      if (follows_letter && std::find(kFolded.begin(), kFolded.end(), pair) != kFolded.end()) {
        refuse(fmt::format("'{}' where case is ignored", pair));
      }
      last_letter_ = lower;
      after_letter_ = true;
    }
    out_ += literal(c);
  }

  bool open_group() {
    if (!peek("(")) return false;
    bool ignores = ignores_case();
    static constexpr std::array<std::string_view, 6> kKinds = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    const auto kind = std::find_if(kKinds.begin(), kKinds.end(), [&](std::string_view k) { return peek(k); });
    if (kind != kKinds.end()) {
      at_ += kind->size();
      out_ += *kind;
    } else if (skip("(?i:")) {
      ignores = true;
      out_ += "(?i:";
    } else if (peek("(?") || peek("(*")) {
      refuse("a group of an unknown kind");
    } else {
      ++at_;
      out_ += "(?:";
    }
    ignores_case_.push_back(ignores);
    if (ignores_case_.size() > kMaxGroups) refuse("groups nested too deeply");
    return true;
  }

  // A number of repeats, or nullopt.
  std::optional<int> number() {
    int value = 0;
    const size_t start = at_;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
      value = value * 10 + (text_[at_++] - '0');
      if (value > kMostRepeats) refuse(fmt::format("more than {} repeats", kMostRepeats));
    }
    return at_ == start ? std::nullopt : std::optional<int>(value);
  }

  void quantifier() {
    if (at_ >= text_.size()) return;
    if (peek("{")) {
      const size_t start = at_++;
      const auto least = number();
      const bool comma = skip(",");
      const auto most = comma ? number() : least;
      if ((!least && !most) || !skip("}")) {
        at_ = start;
        refuse("a '{' that is not a quantifier");
      }
      if (most && *most < least.value_or(0)) refuse("a quantifier that ends before it starts");
      out_ += fmt::format("{{{},{}}}", least.value_or(0), most ? std::to_string(*most) : "");
      if (peek("+") || (peek("?") && !comma)) refuse("a quantifier of a quantifier");
      if (skip("?")) out_ += "?";
    } else if (peek("*") || peek("+") || peek("?")) {
      out_ += text_[at_++];
      if (peek("?") || peek("+")) out_ += text_[at_++];
    } else {
      return;
    }
    after_letter_ = false;
    if (peek("*") || peek("+") || peek("?") || peek("{")) refuse("a quantifier of a quantifier");
  }

  // \p{L} after the "\p" or "\P" has been read.
  std::string category(bool negated) {
    if (!skip("{")) refuse("a property without braces");
    if (skip("^")) negated = !negated;
    const size_t end = text_.find('}', at_);
    const std::string_view name = text_.substr(at_, end == std::string_view::npos ? end : end - at_);
    if (end == std::string_view::npos || std::find(kCategories.begin(), kCategories.end(), name) == kCategories.end()) {
      refuse("a property that is not a general category");
    }
    at_ = end + 1;
    return fmt::format("\\{}{{{}}}", negated ? 'P' : 'p', name);
  }

  char32_t hexadecimal(size_t least, size_t most) {
    char32_t value = 0;
    size_t digits = 0;
    for (; digits < most && at_ < text_.size(); ++digits, ++at_) {
      const char c = text_[at_];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) break;
      value = value * 16 + static_cast<char32_t>(digit);
    }
    if (digits < least || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) refuse("a wrong code point");
    return value;
  }

  // After a backslash: one character, or nullopt with at_ back on the letter.
  std::optional<char32_t> escaped_character() {
    const char32_t c = take();
    if (c >= 0x80) refuse("a backslash before a character beyond ASCII");
    switch (c) {
      case 'n':
        return 0x0A;
      case 'r':
        return 0x0D;
      case 't':
        return 0x09;
      case 'f':
        return 0x0C;
      case 'v':
        return 0x0B;
      case 'a':
        return 0x07;
      case 'e':
        return 0x1B;
      case 'u':
        return hexadecimal(4, 4);
      case 'x': {
        if (skip("{")) {
          const char32_t value = hexadecimal(1, 8);
          if (!skip("}")) refuse("a code point without its '}'");
          return value;
        }
        const char32_t value = hexadecimal(1, 2);
        if (value >= 0x80) refuse("a byte beyond ASCII");
        return value;
      }
      default:
        break;
    }
    const bool alphanumeric = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!alphanumeric) return c;
    --at_;
    return std::nullopt;
  }

  void escape() {
    ++at_;
    if (const auto c = escaped_character()) {
      if (ignores_case() && *c >= 0x80) refuse("a character beyond ASCII where case is ignored");
      out_ += literal(*c);
      return;
    }
    switch (take()) {
      case 's':
        out_ += fmt::format("[{}]", kSpace);
        return;
      case 'S':
        out_ += fmt::format("[^{}]", kSpace);
        return;
      case 'd':
        out_ += "\\p{Nd}";
        return;
      case 'D':
        out_ += "\\P{Nd}";
        return;
      case 'p':
        out_ += category(false);
        return;
      case 'P':
        out_ += category(true);
        return;
      case 'A':
        out_ += "\\A";
        return;
      case 'z':
        out_ += "\\z";
        return;
      default:
        at_ -= 2;
        refuse("an escape that is not supported");
    }
  }

  // What a class holds, one entry; sets `single` when it is a character.
  std::string class_entry(std::optional<char32_t>& single) {
    single.reset();
    if (!skip("\\")) {
      if (peek("[") || peek("&&")) refuse("a class in a class");
      single = take();
    } else {
      single = escaped_character();
    }
    if (single) return literal(*single);
    switch (take()) {
      case 's':
        return std::string(kSpace);
      case 'S':
        return R"(\S\x{180e})";
      case 'd':
        return "\\p{Nd}";
      case 'D':
        return "\\P{Nd}";
      case 'p':
        return category(false);
      case 'P':
        return category(true);
      default:
        at_ -= 2;
        refuse("an escape that is not supported");
    }
  }

  std::string character_class() {
    ++at_;
    std::string result = skip("^") ? "[^" : "[";
    if (ignores_case()) refuse("a class where case is ignored");
    if (peek("]")) refuse("an empty class");
    while (!skip("]")) {
      std::optional<char32_t> first, last;
      result += class_entry(first);
      if (!peek("-") || peek("-]")) continue;
      ++at_;
      const std::string end = class_entry(last);
      if (!first || !last || *last < *first) refuse("a range that is none");
      result += "-" + end;
    }
    return result + "]";
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
  std::string out_;
  std::vector<bool> ignores_case_;  // of the open groups
  bool after_letter_ = false;       // the item before is one letter, ignoring case: last_letter_
  char last_letter_ = 0;
};

}  // namespace

std::string translate_expression(std::string_view expression, const std::string& where) {
  return Translator(expression, where).translate();
}

}  // namespace kvc
