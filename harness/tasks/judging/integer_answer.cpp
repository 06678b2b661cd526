#include "harness/tasks/judging/integer_answer.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "harness/tasks/judging/boxes.h"
#include "harness/tasks/judging/pattern.h"

namespace kvc {
namespace {

// A number as it is written.
struct Number {
  size_t begin = 0, end = 0;
  std::optional<int64_t> value;  // nothing for what is no integer from 0 to 999
};

// Digits only, thousands separators and a fraction of zeros left out; nothing for other fractions and above 999.
std::optional<int64_t> value_of(std::string_view written) {
  const size_t point = written.find('.');
  if (point != std::string_view::npos && written.find_first_not_of('0', point + 1) != std::string_view::npos)
    return std::nullopt;
  int64_t value = 0;
  for (const char c : written.substr(0, point)) {
    if (c < '0' || c > '9') continue;
    value = value * 10 + (c - '0');
    if (value > 999) return std::nullopt;
  }
  return value;
}

std::vector<Number> numbers_of(std::string_view text) {
  static const Pattern pattern(
      R"((?<![\p{L}\p{N}_.])(?<!\d,)(?<!\d\{,\})(\d{1,3}(?:(?:,|\{,\}|\\,|\\!,|,\\!)\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?)(?![\p{L}\p{N}_]))");
  static const Pattern sign(R"((?:\A|[\s({\[=:$])(?:-|−|–)\s?\z)");
  static const Pattern fraction_before(R"(\d\s*/\s*\z|\\d?frac\{?[^{}]*\}?\{?\z|\^\{?\z)");
  static const Pattern fraction_behind(R"(\A\s*/\s*\d|\A\s*\^\s*\{?[-\d])");
  std::vector<Number> list;
  for (const PatternMatch& match : pattern.all(text)) {
    const size_t from = match.begin > 40 ? match.begin - 40 : 0;
    const std::string_view before = text.substr(from, match.begin - from);
    const std::string_view behind = text.substr(match.end, 8);
    const bool whole = !sign.is_in(before) && !fraction_before.is_in(before) && !fraction_behind.is_in(behind);
    list.push_back(
        {match.begin, match.end, whole ? value_of(text.substr(match.begin, match.end - match.begin)) : std::nullopt});
  }
  return list;
}

std::string without(const Pattern& pattern, std::string_view text) {
  std::string result;
  size_t from = 0;
  for (const PatternMatch& match : pattern.all(text)) {
    result += text.substr(from, match.begin - from);
    result += ' ';
    from = match.end;
  }
  return result + std::string(text.substr(from));
}

// Nothing where the box holds no number at all.
std::optional<Number> number_in_box(std::string_view box) {
  static const Pattern aside(R"(\\pmod\s*\{[^{}]*\}|\(?\s*\\?b?mod\b[^)]*\)?|\^\s*\{?\s*\\circ\s*\}?|_\s*\{?\d+\}?)");
  static const Pattern styles(
      R"(\\(?:text|textbf|textit|mathbf|mathrm|mathit|mathsf|bf|rm)\b\s*|\\[,;:! ](?!\d)|\\left|\\right|[$~])");
  static const Pattern operations(R"(\\[dt]?frac|\\sqrt|\\cdot|\\times|\\div|\\binom|[\^/*!]|\d\s*[+−–-]|[+−–-]\s*\d)");
  std::string content = without(styles, without(aside, box));
  if (const size_t equals = content.rfind('='); equals != std::string::npos) content = content.substr(equals + 1);
  const std::vector<Number> numbers = numbers_of(content);
  if (numbers.empty()) return std::nullopt;
  Number number = numbers.front();
  const size_t first = content.find_first_not_of(" \t\n{(");
  const bool plus = first != std::string::npos && content[first] == '+';
  if (numbers.size() > 1 ||
      operations.is_in(plus ? std::string_view(content).substr(first + 1) : std::string_view(content)))
    number.value = std::nullopt;
  return number;
}

}  // namespace

std::optional<int64_t> parse_integer(const std::string& text, bool cut) {
  const std::vector<std::string_view> boxes = boxes_of(text);
  for (size_t i = boxes.size(); i-- > 0;) {
    if (const auto number = number_in_box(boxes[i])) return number->value;
  }
  const std::vector<Number> numbers = numbers_of(text);
  const auto value = [&](const Number& number) {
    return cut && number.end == text.size() ? std::nullopt : number.value;
  };
  static const Pattern label(R"((?i:\banswer\s*(?::|is\b|=|would be\b|must be\b)))");
  if (const auto labels = label.all(text); !labels.empty()) {
    const size_t line_end = std::min(text.find('\n', labels.back().end), text.size());
    for (const Number& number : numbers) {
      if (number.begin >= labels.back().end && number.end <= line_end) return value(number);
    }
  }
  return numbers.empty() ? std::nullopt : value(numbers.back());
}

}  // namespace kvc
