#include "harness/text/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "harness/text/jinja/fail.h"
#include "harness/text/jinja/text.h"

namespace kvc::jinja {
namespace {

constexpr size_t kMaxTemplateBytes = size_t{512} << 10U;
constexpr size_t kMaxNameBytes = 256;  // keeps a look-up cheap

bool starts_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string with_plain_newlines(const std::string& source) {
  std::string result;
  result.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    result += source[i] == '\r' ? '\n' : source[i];
  }
  if (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

class Lexer {
 public:
  Lexer(const std::string& source, const std::string& where) : source_(with_plain_newlines(source)), where_(where) {}

  std::vector<Token> run() {
    if (source_.size() > kMaxTemplateBytes) {
      fail(fmt::format("the chat template has {} bytes, more than {}", source_.size(), kMaxTemplateBytes), where_, 1);
    }
    while (at_ < source_.size()) outside();
    add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  using Kind = Token::Kind;

  bool sees(std::string_view text) const { return source_.compare(at_, text.size(), text) == 0; }

  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    at_ = to;
  }

  Token& add(Kind kind, std::string text) {
    Token token;
    token.kind = kind;
    token.line = line_;
    token.text = std::move(text);
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  // Text up to the next tag, then the tag.
  void outside() {
    const size_t begin = at_;
    size_t open = begin;
    do {
      open = source_.find('{', open);
      if (open == std::string::npos || open + 1 == source_.size()) open = source_.size();
    } while (open < source_.size() && std::string_view("{%#").find(source_[open + 1]) == std::string_view::npos &&
             ++open > 0);
    add_text(begin, open, open < source_.size() ? open : std::string::npos);
    advance(open);
    if (open == source_.size()) return;
    const int line = line_;
    const char type = source_[open + 1];
    advance(open + 2);
    if (type == '#') {
      comment(line);
    } else if (type == '%' && !raw(line)) {
      skip_mark();
      add(Kind::kTagBegin, "");
      inside(Kind::kTagEnd, line);
    } else if (type == '{') {
      skip_mark();
      add(Kind::kOutputBegin, "");
      inside(Kind::kOutputEnd, line);
    }
  }

  void skip_mark() {
    if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) ++at_;
  }

  // Text [begin, end) in front of the tag at `tag` (npos: of none).
  void add_text(size_t begin, size_t end, size_t tag) {
    std::string_view text(source_.data() + begin, end - begin);
    if (tag != std::string::npos) {
      const char mark = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
      if (mark == '-') {
        text = text.substr(0, skip_space_back(text, text.size()));
      } else if (mark != '+' && source_[tag + 1] != '{') {
        const size_t newline = text.rfind('\n');
        const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
        const bool at_line_start = line_start > 0 || begin == 0 || source_[begin - 1] == '\n';
        if (at_line_start && skip_space(text, line_start) == text.size()) text = text.substr(0, line_start);
      }
    }
    if (!text.empty()) add(Kind::kText, std::string(text));
  }

  // Past the closing sign at at_, `size` bytes long, and what white space it takes with it.
  void close(size_t size, bool takes_newline, bool takes_space) {
    size_t end = at_ + size;
    if (takes_space) {
      end = skip_space(source_, end);
    } else if (takes_newline && end < source_.size() && source_[end] == '\n') {
      ++end;
    }
    advance(end);
  }

  void comment(int line) {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail("a comment is not closed: '#}' is missing", where_, line);
    const char mark = end > at_ ? source_[end - 1] : ' ';
    advance(end);
    close(2, mark != '+', mark == '-');
  }

  // At `word` with blanks around and a closing sign: true, and past them.
  bool take_raw_tag(std::string_view word, bool takes_newline) {
    const size_t begin = at_;
    const int line = line_;
    skip_mark();
    advance(skip_space(source_, at_));
    if (sees(word)) {
      at_ += word.size();
      advance(skip_space(source_, at_));
      const bool strips = sees("-%}"), keeps = takes_newline && sees("+%}");
      if (strips || keeps || sees("%}")) {
        close(strips || keeps ? 3 : 2, takes_newline && !keeps, strips);
        return true;
      }
    }
    at_ = begin;
    line_ = line;
    return false;
  }

  // Behind "{%": a raw block, if it is one.
  bool raw(int line) {
    if (!take_raw_tag("raw", false)) return false;
    const size_t begin = at_;
    for (size_t tag = source_.find("{%", begin); tag != std::string::npos; tag = source_.find("{%", tag + 2)) {
      const size_t text_at = at_;
      const int text_line = line_;
      advance(tag + 2);
      if (take_raw_tag("endraw", true)) {
        add_text(begin, tag, tag);
        return true;
      }
      at_ = text_at;
      line_ = text_line;
    }
    fail("a raw block is not closed: '{% endraw %}' is missing", where_, line);
  }

  // Tokens up to the closing sign. Inside brackets a "}}" is two brackets.
  void inside(Kind end_kind, int line) {
    const std::string_view sign = end_kind == Kind::kTagEnd ? "%}" : "}}";
    std::string open;
    for (;;) {
      advance(skip_space(source_, at_));
      if (at_ >= source_.size()) fail(fmt::format("a tag is not closed: '{}' is missing", sign), where_, line);
      if (open.empty()) {
        const char mark = source_[at_];
        const bool marked = (mark == '-' || (mark == '+' && end_kind == Kind::kTagEnd)) &&
                            source_.compare(at_ + 1, sign.size(), sign) == 0;
        if (marked || sees(sign)) {
          add(end_kind, "");
          close(marked ? 3 : 2, end_kind == Kind::kTagEnd && mark != '+', mark == '-');
          return;
        }
      }
      const char c = source_[at_];
      if (starts_name(c)) {
        name();
      } else if (is_digit(c)) {
        number();
      } else if (c == '\'' || c == '"') {
        string(c);
      } else {
        this->sign(open);
      }
    }
  }

  void name() {
    size_t end = at_;
    while (end < source_.size() && (starts_name(source_[end]) || is_digit(source_[end]))) ++end;
    if (end - at_ > kMaxNameBytes) fail("a name is longer than 256 characters", where_, line_);
    add(Kind::kName, source_.substr(at_, end - at_));
    at_ = end;
  }

  void number() {
    std::string digits;
    bool real = false;
    const auto take_digits = [&] {
      while (at_ < source_.size() && (is_digit(source_[at_]) || source_[at_] == '_')) {
        if (source_[at_] != '_') digits += source_[at_];
        ++at_;
      }
    };
    const auto digit_at = [&](size_t i) { return i < source_.size() && is_digit(source_[i]); };
    take_digits();
    if (at_ < source_.size() && source_[at_] == '.' && digit_at(at_ + 1)) {
      real = true;
      digits += '.';
      ++at_;
      take_digits();
    }
    if (at_ < source_.size() && (source_[at_] == 'e' || source_[at_] == 'E')) {
      const bool has_sign = at_ + 1 < source_.size() && (source_[at_ + 1] == '-' || source_[at_ + 1] == '+');
      if (digit_at(at_ + 1 + (has_sign ? 1 : 0))) {
        real = true;
        digits += 'e';
        if (source_[++at_] == '-') digits += '-';
        if (has_sign) ++at_;
        take_digits();
      }
    }
    Token& token = add(real ? Kind::kReal : Kind::kInteger, "");
    const char* end = digits.data() + digits.size();
    const auto read =
        real ? std::from_chars(digits.data(), end, token.real) : std::from_chars(digits.data(), end, token.integer);
    if (read.ec != std::errc() || read.ptr != end) fail("a number is out of range", where_, line_);
  }

  void string(char quote) {
    const int line = line_;
    std::string value;
    size_t i = at_ + 1;
    for (; i < source_.size() && source_[i] != quote; ++i) {
      if (source_[i] != '\\') {
        value += source_[i];
        continue;
      }
      if (++i == source_.size()) break;
      i = escape(i, value) - 1;
    }
    if (i >= source_.size()) fail("a string is not closed", where_, line);
    Token& token = add(Kind::kString, "");
    token.text = std::move(value);
    advance(i + 1);
  }

  // The escape behind the backslash at i - 1; gives the offset behind it.
  size_t escape(size_t i, std::string& value) const {
    const char c = source_[i];
    static constexpr std::string_view kLetters = "nrtabfv\\'\"", kMeant = "\n\r\t\a\b\f\v\\'\"";
    const size_t plain = kLetters.find(c);
    if (plain != std::string_view::npos) {
      value += kMeant[plain];
      return i + 1;
    }
    if (c == '\n') return i + 1;
    const size_t n_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (n_digits > 0) return number_escape(i + 1, i + 1 + n_digits, 16, value);
    if (c >= '0' && c <= '7') {
      size_t end = i;
      while (end < source_.size() && end < i + 3 && source_[end] >= '0' && source_[end] <= '7') ++end;
      return number_escape(i, end, 8, value);
    }
    if (c == 'N') fail("an escape \\N{...} is not supported", where_, line_);
    value += '\\';
    value += c;
    return i + 1;
  }

  size_t number_escape(size_t begin, size_t end, int base, std::string& value) const {
    std::uint32_t point = 0;
    const char* first = source_.data() + std::min(begin, source_.size());
    const char* last = source_.data() + std::min(end, source_.size());
    const auto read = std::from_chars(first, last, point, base);
    if (end > source_.size() || read.ec != std::errc() || read.ptr != last || point > 0x10FFFF ||
        (point >= 0xD800 && point < 0xE000)) {
      fail("invalid escape sequence", where_, line_);
    }
    value += spell_character(point);
    return end;
  }

  void sign(std::string& open) {
    static constexpr std::string_view kDouble[] = {"//", "**", "==", "!=", ">=", "<="};
    for (const std::string_view sign : kDouble) {
      if (sees(sign)) {
        add(Kind::kSign, std::string(sign));
        at_ += 2;
        return;
      }
    }
    const char c = source_[at_];
    if (std::string_view("+-/*%~[](){}><=.:|,").find(c) == std::string_view::npos) {
      fail(fmt::format("no token begins with '{}'", excerpt(source_.substr(at_, 1))), where_, line_);
    }
    if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) fail(fmt::format("unmatched '{}'", c), where_, line_);
      open.pop_back();
    }
    add(Kind::kSign, std::string(1, c));
    ++at_;
  }

  std::string source_;
  const std::string& where_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> cut_tokens(const std::string& source, const std::string& where) {
  return Lexer(source, where).run();
}

}  // namespace kvc::jinja
