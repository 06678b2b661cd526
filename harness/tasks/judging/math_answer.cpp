#include "harness/tasks/judging/math_answer.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "harness/tasks/judging/boxes.h"
#include "harness/tasks/judging/math_value.h"
#include "harness/tasks/judging/pattern.h"

namespace kvc {
namespace {

constexpr size_t kMostAnswerBytes = 2000;

std::string_view stripped(std::string_view text) {
  constexpr const char* kSpace = " \t\r\n\f\v*_";  // Markdown's bold and italics too
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// Up to the end of the first sentence or line.
std::string_view first_sentence(std::string_view text) {
  static const Pattern end(R"(\n|[.!?](?=\s+[\p{Lu}(\[])|\.\s*\z)");
  const auto ends = end.all(text);
  return ends.empty() ? text : text.substr(0, ends.front().begin);
}

struct Found {
  std::string text;
  bool at_end = false;  // nothing stands behind it
};

Found behind_label(const std::string& text, size_t at) {
  const size_t line = std::min(text.find_first_not_of(" \t\r\n:*", at), text.size());
  const std::string_view rest = std::string_view(text).substr(line);
  const std::string_view sentence = first_sentence(rest);
  return {std::string(stripped(sentence)), sentence.size() == rest.size()};
}

std::optional<Found> last_formula(const std::string& text) {
  const size_t end = text.find_last_not_of(" \t\r\n");
  if (end == std::string::npos) return std::nullopt;
  const size_t before = text.rfind('\n', end);
  const size_t begin = before == std::string::npos ? 0 : before + 1;
  const std::string_view line = std::string_view(text).substr(begin, end - begin + 1);
  static const Pattern formula(R"(\$\$?([^$\n]+)\$\$?|\\\(([^\n]+?)\\\)|\\\[([^\n]+?)\\\])");
  const auto matches = formula.all(line);
  if (matches.empty()) return std::nullopt;
  const PatternMatch& match = matches.back();
  return Found{std::string(line.substr(match.group_begin, match.group_end - match.group_begin)), false};
}

std::optional<Found> last_number_or_line(const std::string& text) {
  static const Pattern number(
      R"((?:(?<![\p{L}\p{N}_\)\]}])[-−]\s?)?\\?\$?(?<![\p{L}_.])\d+(?:,\d{3})*(?:\.\d+)?(?:\s*/\s*\d+)?%?)");
  const auto matches = number.all(text);
  if (!matches.empty()) {
    const PatternMatch& match = matches.back();
    return Found{text.substr(match.begin, match.end - match.begin), match.end == text.size()};
  }
  const std::string_view all = stripped(text);
  if (all.empty()) return std::nullopt;
  const size_t line = all.rfind('\n');
  return Found{std::string(stripped(line == std::string_view::npos ? all : all.substr(line + 1))), true};
}

// Of an answer that was cut off: the number in front where words have begun behind it, as only then it is whole.
std::optional<std::string> whole_number_of_cut(const std::string& answer) {
  static const Pattern number(R"(\A-?\\?\$?\d+(?:,\d{3})*(?:\.\d+)?%?(?=\$?\s+\p{L}{2})(?!\$?\s+(?:and|or)\b))");
  const auto matches = number.all(answer);
  if (matches.empty()) return std::nullopt;
  return answer.substr(0, matches.front().end);
}

MathValue value_of(const std::string& text, bool commas_part = false) {
  if (text.size() <= kMostAnswerBytes) return math_value(math_tokens(text), commas_part);
  MathValue value;
  value.text = text;
  return value;
}

bool is_denied(const std::vector<MathToken>& tokens) {
  return std::any_of(tokens.begin(), tokens.end(), [](const MathToken& token) {
    return token.is_word("not") || token.is_word("wrong") || token.is_word("incorrect") || token.is_word("cannot");
  });
}

// Whether a sign of comparison stands before the first number: >5 is not 5.
bool bounds_only(const std::vector<MathToken>& tokens) {
  for (const MathToken& token : tokens) {
    if (token.kind == MathToken::Kind::kNumber) return false;
    if (token.is_mark("<") || token.is_mark(">")) return true;
    if (token.is_symbol("le") || token.is_symbol("ge") || token.is_symbol("ne")) return true;
  }
  return false;
}

// Of words with a number in front: the number.
std::optional<std::string> number_in_words(const std::string& answer) {
  if (answer.size() > kMostAnswerBytes) return std::nullopt;
  const std::vector<MathToken> tokens = math_tokens(answer);
  if (is_denied(tokens) || bounds_only(tokens)) return std::nullopt;
  static const Pattern words(R"((?<!\\)\b\p{L}{2})");
  if (words.all(answer).empty()) return std::nullopt;
  static const Pattern number(
      R"((?<![\p{L}\p{N}_.^/])-?\\?\$?\d+(?:,\d{3})*(?:\.\d+)?%?(?![\p{N}_^/:]|\s*[/^+]|-(?!\p{L})|,\d))");
  const auto matches = number.all(answer);
  if (matches.empty()) return std::nullopt;
  const PatternMatch& match = matches.front();
  std::string digits = answer.substr(match.begin, match.end - match.begin);
  const bool in_list =
      match.begin > 0 && std::string_view("([").find(answer[match.begin - 1]) != std::string_view::npos;
  if (in_list && digits.find(',') != std::string::npos) return std::nullopt;  // (1,100) is a pair
  return digits;
}

}  // namespace

bool same_math_answer(const std::string& answer, const std::string& gold) {
  const MathValue a = value_of(answer), b = value_of(gold);
  if (same_value(a, b)) return true;
  if (a.kind == b.kind) return false;
  return same_value(value_of(answer, true), b) || same_value(a, value_of(gold, true));
}

std::optional<std::string> final_math_answer(const std::string& text, bool cut) {
  const std::vector<std::string_view> boxes = boxes_of(text);
  for (size_t i = boxes.size(); i-- > 0;) {
    if (!stripped(boxes[i]).empty()) return std::string(stripped(boxes[i]));
  }
  static const Pattern label(R"(####|(?i:\banswer\s*(?:\*\*)?(?::|is\b:?|=|would be\b|must be\b)))");
  std::optional<Found> found;
  if (const auto labels = label.all(text); !labels.empty()) found = behind_label(text, labels.back().end);
  if (!found || found->text.empty()) found = last_formula(text);
  if (!found || stripped(found->text).empty()) found = last_number_or_line(text);
  if (!found || found->text.empty()) return std::nullopt;
  return cut && found->at_end ? whole_number_of_cut(found->text) : found->text;
}

bool gives_math_answer(const std::string& text, const std::string& gold, bool cut) {
  const auto answer = final_math_answer(text, cut);
  if (!answer) return false;
  if (same_math_answer(*answer, gold)) return true;
  const MathValue wanted = value_of(gold), given = value_of(*answer);
  if (!wanted.expression || !wanted.expression->is_rational() || given.kind != MathValue::Kind::kText) return false;
  const auto number = number_in_words(*answer);
  return number && same_math_answer(*number, gold);
}

}  // namespace kvc
