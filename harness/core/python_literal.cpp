#include "harness/core/python_literal.h"

#include <charconv>
#include <cstdint>
#include <string>

namespace kvc {
namespace {

constexpr int kDeepestLiteral = 32;

void append_utf8(std::string& text, std::uint32_t point) {
  const auto byte = [&](std::uint32_t value) { text += static_cast<char>(value); };
  if (point < 0x80) {
    byte(point);
  } else if (point < 0x800) {
    byte(0xC0 | point >> 6);
    byte(0x80 | (point & 0x3F));
  } else if (point < 0x10000) {
    byte(0xE0 | point >> 12);
    byte(0x80 | (point >> 6 & 0x3F));
    byte(0x80 | (point & 0x3F));
  } else {
    byte(0xF0 | point >> 18);
    byte(0x80 | (point >> 12 & 0x3F));
    byte(0x80 | (point >> 6 & 0x3F));
    byte(0x80 | (point & 0x3F));
  }
}

class LiteralReader {
 public:
  explicit LiteralReader(std::string_view text) : text_(text) {}

  std::optional<Json> value(int depth) {
    skip_blanks();
    if (at_ >= text_.size() || depth > kDeepestLiteral) return std::nullopt;
    const char c = text_[at_];
    if (c == '[' || c == '(') return list(c == '[' ? ']' : ')', depth);
    if (c == '{') return dictionary(depth);
    if (c == '\'' || c == '"') return string();
    for (const auto& [name, meaning] :
         {std::pair<std::string_view, Json>{"True", true}, {"False", false}, {"None", nullptr}}) {
      if (!text_.substr(at_).starts_with(name)) continue;
      at_ += name.size();
      return meaning;
    }
    return number();
  }

  size_t at() const { return at_; }

 private:
  void skip_blanks() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
  }
  bool take(char c) {
    skip_blanks();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::optional<Json> list(char close, int depth) {
    ++at_;
    Json items = Json::array();
    while (!take(close)) {
      auto item = value(depth + 1);
      if (!item) return std::nullopt;
      items.push_back(std::move(*item));
      if (take(',')) continue;
      if (!take(close)) return std::nullopt;
      break;
    }
    return items;
  }

  std::optional<Json> dictionary(int depth) {
    ++at_;
    Json items = Json::object();
    while (!take('}')) {
      const auto key = value(depth + 1);
      if (!key || !key->is_string() || !take(':')) return std::nullopt;
      auto item = value(depth + 1);
      if (!item) return std::nullopt;
      items[key->get<std::string>()] = std::move(*item);
      if (take(',')) continue;
      if (!take('}')) return std::nullopt;
      break;
    }
    return items;
  }

  std::optional<Json> string() {
    const char quote = text_[at_++];
    std::string result;
    while (at_ < text_.size() && text_[at_] != quote) {
      if (text_[at_] != '\\') {
        result += text_[at_++];
      } else if (!escape(result)) {
        return std::nullopt;
      }
    }
    if (at_ >= text_.size()) return std::nullopt;
    ++at_;
    return Json(result);
  }

  bool escape(std::string& result) {
    if (++at_ >= text_.size()) return false;
    const char c = text_[at_++];
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits > 0) {
      std::uint32_t point = 0;
      if (at_ + digits > text_.size()) return false;
      const char* begin = text_.data() + at_;
      if (std::from_chars(begin, begin + digits, point, 16).ptr != begin + digits || point > 0x10FFFF) return false;
      append_utf8(result, point);
      at_ += digits;
      return true;
    }
    constexpr std::string_view kNames = "ntr0abfv", kMeanings = {"\n\t\r\0\a\b\f\v", 8};
    const size_t named = kNames.find(c);
    if (named != std::string_view::npos) {
      result += kMeanings[named];
    } else if (c != '\n') {  // a line that goes on
      result += c;
    }
    return true;
  }

  std::optional<Json> number() {
    size_t end = at_;
    while (end < text_.size() && std::string_view("+-.0123456789eE").find(text_[end]) != std::string_view::npos) ++end;
    Json parsed = Json::parse(text_.substr(at_, end - at_), nullptr, false);
    if (parsed.is_discarded() || !parsed.is_number()) return std::nullopt;
    at_ = end;
    return parsed;
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

std::optional<Json> read_python_literal(std::string_view text, size_t& used) {
  LiteralReader reader(text);
  auto value = reader.value(0);
  used = reader.at();
  return value;
}

}  // namespace kvc
