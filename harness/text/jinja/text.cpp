#include "harness/text/jinja/text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include "harness/core/utf8.h"

namespace kvc::jinja {
namespace {

bool holds(const std::string& set, char32_t point) {
  for (size_t i = 0; i < set.size(); i += character_length(set, i)) {
    if (character_at(set, i) == point) return true;
  }
  return false;
}

size_t character_before(std::string_view bytes, size_t end) {
  for (size_t back = 2; back <= 4 && back <= end; ++back) {
    if (utf8_length(bytes.substr(0, end), end - back) == back) return end - back;
  }
  return end - 1;
}

bool has_case(char32_t point) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LT;
}

bool ends_word(char32_t point) {
  return is_space(point) || (point < 0x80 && std::string_view("-({[<").find(static_cast<char>(point)) < 5);
}

bool is_printable(char32_t point) {
  if (point == ' ') return true;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
  return category != UTF8PROC_CATEGORY_CN && category < UTF8PROC_CATEGORY_ZS;
}

std::string changed(char32_t point, bool upper) {
  if (point < 0x80) {
    const bool letter = upper ? point >= 'a' && point <= 'z' : point >= 'A' && point <= 'Z';
    return {static_cast<char>(letter ? point ^ 0x20U : point)};
  }
  if (upper && point == 0xDF) return "SS";
  const auto value = static_cast<utf8proc_int32_t>(point);
  return spell_character(static_cast<char32_t>(upper ? utf8proc_toupper(value) : utf8proc_tolower(value)));
}

}  // namespace

std::vector<Segment> Text::segments() const {
  std::vector<Segment> result;
  for (size_t begin = 0; begin < size();) {
    size_t end = marks_.find(marks_[begin] == 0 ? '\1' : '\0', begin);
    if (end == std::string::npos) end = size();
    result.push_back({bytes_.substr(begin, end - begin), control(begin)});
    begin = end;
  }
  return result;
}

size_t character_length(std::string_view bytes, size_t offset) {
  const size_t length = utf8_length(bytes, offset);
  return length == 0 ? 1 : length;
}

char32_t character_at(std::string_view bytes, size_t offset) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(bytes[offset + i])); };
  switch (utf8_length(bytes, offset)) {
    case 1:
      return byte(0);
    case 2:
      return ((byte(0) & 0x1FU) << 6U) | (byte(1) & 0x3FU);
    case 3:
      return ((byte(0) & 0x0FU) << 12U) | ((byte(1) & 0x3FU) << 6U) | (byte(2) & 0x3FU);
    case 4:
      return ((byte(0) & 0x07U) << 18U) | ((byte(1) & 0x3FU) << 12U) | ((byte(2) & 0x3FU) << 6U) | (byte(3) & 0x3FU);
    default:
      return 0xFFFD;
  }
}

int64_t count_characters(std::string_view bytes) {
  int64_t count = 0;
  for (size_t i = 0; i < bytes.size(); i += character_length(bytes, i)) ++count;
  return count;
}

std::vector<size_t> character_offsets(std::string_view bytes) {
  std::vector<size_t> offsets;
  for (size_t i = 0; i < bytes.size(); i += character_length(bytes, i)) offsets.push_back(i);
  offsets.push_back(bytes.size());
  return offsets;
}

std::string spell_character(char32_t point) {
  const auto tail = [&](unsigned shift) { return static_cast<char>(0x80U | ((point >> shift) & 0x3FU)); };
  if (point < 0x80) return {static_cast<char>(point)};
  if (point < 0x800) return {static_cast<char>(0xC0U | (point >> 6U)), tail(0)};
  if (point < 0x10000) return {static_cast<char>(0xE0U | (point >> 12U)), tail(6), tail(0)};
  return {static_cast<char>(0xF0U | (point >> 18U)), tail(12), tail(6), tail(0)};
}

bool is_space(char32_t point) {
  return (point >= 0x09 && point <= 0x0D) || (point >= 0x1C && point <= 0x20) || point == 0x85 || point == 0xA0 ||
         point == 0x1680 || (point >= 0x2000 && point <= 0x200A) || point == 0x2028 || point == 0x2029 ||
         point == 0x202F || point == 0x205F || point == 0x3000;
}

size_t skip_space(std::string_view bytes, size_t begin) {
  while (begin < bytes.size() && is_space(character_at(bytes, begin))) begin += character_length(bytes, begin);
  return begin;
}

size_t skip_space_back(std::string_view bytes, size_t end) {
  while (end > 0) {
    const size_t before = character_before(bytes, end);
    if (!is_space(character_at(bytes, before))) break;
    end = before;
  }
  return end;
}

Text strip(const Text& text, const std::string* set, bool left, bool right) {
  const std::string& bytes = text.bytes();
  const auto strips = [&](size_t at) {
    const char32_t point = character_at(bytes, at);
    return set == nullptr ? is_space(point) : holds(*set, point);
  };
  size_t begin = 0, end = bytes.size();
  while (left && begin < end && strips(begin)) begin += character_length(bytes, begin);
  while (right && end > begin) {
    const size_t before = character_before(bytes, end);
    if (before < begin || !strips(before)) break;
    end = before;
  }
  return text.part(begin, end);
}

std::vector<Text> split(const Text& text, const std::string& separator, int64_t limit) {
  std::vector<Text> pieces;
  size_t begin = 0;
  for (; limit != 0; --limit) {
    const size_t found = text.bytes().find(separator, begin);
    if (found == std::string::npos) break;
    pieces.push_back(text.part(begin, found));
    begin = found + separator.size();
  }
  pieces.push_back(text.part(begin, text.size()));
  return pieces;
}

std::vector<Text> split_words(const Text& text, int64_t limit) {
  const std::string& bytes = text.bytes();
  std::vector<Text> words;
  size_t at = skip_space(bytes, 0);
  while (at < bytes.size()) {
    if (limit-- == 0) {
      words.push_back(text.part(at, skip_space_back(bytes, bytes.size())));
      break;
    }
    size_t end = at;
    while (end < bytes.size() && !is_space(character_at(bytes, end))) end += character_length(bytes, end);
    words.push_back(text.part(at, end));
    at = skip_space(bytes, end);
  }
  return words;
}

std::vector<Text> split_lines(const Text& text) {
  const std::string& bytes = text.bytes();
  std::vector<Text> lines;
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    const char32_t point = character_at(bytes, at);
    size_t next = at + character_length(bytes, at);
    const bool ends = (point >= 0x0A && point <= 0x0D) || (point >= 0x1C && point <= 0x1E) || point == 0x85 ||
                      point == 0x2028 || point == 0x2029;
    if (ends) {
      if (point == '\r' && next < bytes.size() && bytes[next] == '\n') ++next;
      lines.push_back(text.part(begin, at));
      begin = next;
    }
    at = next;
  }
  if (begin < bytes.size()) lines.push_back(text.part(begin, bytes.size()));
  return lines;
}

Text replace(const Text& text, const std::string& old_text, const Text& new_text, int64_t limit) {
  Text result;
  size_t begin = 0;
  for (; limit != 0 && !old_text.empty(); --limit) {
    const size_t found = text.bytes().find(old_text, begin);
    if (found == std::string::npos) break;
    result.append(text, begin, found);
    result.append(new_text);
    begin = found + old_text.size();
  }
  for (; limit != 0 && old_text.empty(); --limit) {
    result.append(new_text);
    if (begin >= text.size()) break;
    const size_t next = begin + character_length(text.bytes(), begin);
    result.append(text, begin, next);
    begin = next;
  }
  result.append(text, begin, text.size());
  return result;
}

Text change_case(const Text& text, Casing casing) {
  Text result;
  bool inside_word = false;
  const std::string& bytes = text.bytes();
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = character_length(bytes, at);
    const bool valid = utf8_length(bytes, at) > 0;
    const char32_t point = character_at(bytes, at);
    const bool upper = casing == Casing::kUpper || (casing == Casing::kCapitalize && at == 0) ||
                       (casing >= Casing::kTitle && !inside_word);
    if (valid) {
      result.append(changed(point, upper), text.control(at));
    } else {
      result.append(text, at, at + length);
    }
    inside_word = casing == Casing::kTitle ? valid && has_case(point) : !valid || !ends_word(point);
    at += length;
  }
  return result;
}

Text quoted_for_python(const Text& text) {
  const std::string& bytes = text.bytes();
  const char quote = bytes.find('\'') != std::string::npos && bytes.find('"') == std::string::npos ? '"' : '\'';
  Text result(std::string(1, quote), true);
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = character_length(bytes, at);
    const char32_t point = character_at(bytes, at);
    std::string spelled = bytes.substr(at, length);
    if (point == static_cast<char32_t>(quote) || point == '\\') spelled.insert(0, 1, '\\');
    if (point == '\n') spelled = "\\n";
    if (point == '\r') spelled = "\\r";
    if (point == '\t') spelled = "\\t";
    if (spelled.size() == length && !is_printable(point)) {
      const auto code = static_cast<unsigned>(point);
      spelled = code < 0x100     ? fmt::format("\\x{:02x}", code)
                : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                                 : fmt::format("\\U{:08x}", code);
    }
    result.append(spelled, text.control(at));
    at += length;
  }
  result.append(std::string_view(&quote, 1), true);
  return result;
}

Text quoted_for_json(const Text& text) {
  Text result("\"", true);
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text.bytes()[at];
    std::string spelled(1, c);
    if (c == '"' || c == '\\') spelled.insert(0, 1, '\\');
    if (static_cast<unsigned char>(c) < 0x20) {
      static constexpr std::string_view kPlain = "\b\t\n\f\r", kLetters = "btnfr";
      const size_t found = kPlain.find(c);
      spelled = found != std::string_view::npos ? std::string{'\\', kLetters[found]}
                                                : fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    }
    result.append(spelled, text.control(at));
  }
  result.append("\"", true);
  return result;
}

}  // namespace kvc::jinja
