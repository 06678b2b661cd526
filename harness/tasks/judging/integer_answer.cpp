#include "harness/tasks/judging/integer_answer.h"

#include <string_view>

namespace kvc {
namespace {

constexpr std::string_view kForcedEnd = "I need to respond with the answer.\n</think>Final Answer: ";
constexpr std::string_view kEndOfThought = "</think>";

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_word(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

// Digits [first, last).
struct Run {
  size_t first = 0, last = 0;
};

// The run of digits that begins at or behind `from`.
std::optional<Run> next_run(std::string_view text, size_t from) {
  while (from < text.size() && !is_digit(text[from])) ++from;
  if (from >= text.size()) return std::nullopt;
  Run run{from, from};
  while (run.last < text.size() && is_digit(text[run.last])) ++run.last;
  return run;
}

bool is_short(std::string_view text, const Run& run) {
  const bool alone =
      (run.first == 0 || !is_word(text[run.first - 1])) && (run.last == text.size() || !is_word(text[run.last]));
  return alone && run.last - run.first <= 3;
}

// Nothing above 999, however many digits.
std::optional<int64_t> value_of(std::string_view text, const Run& run) {
  int64_t value = 0;
  for (size_t i = run.first; i < run.last; ++i) {
    value = value * 10 + (text[i] - '0');
    if (value > 999) return std::nullopt;
  }
  return value;
}

std::optional<int64_t> first_short(std::string_view text) {
  for (auto run = next_run(text, 0); run; run = next_run(text, run->last)) {
    if (is_short(text, *run)) return value_of(text, *run);
  }
  return std::nullopt;
}

std::optional<int64_t> last_short(std::string_view text) {
  std::optional<int64_t> found;
  for (auto run = next_run(text, 0); run; run = next_run(text, run->last)) {
    if (is_short(text, *run)) found = value_of(text, *run);
  }
  return found;
}

std::optional<int64_t> last_in_range(std::string_view text) {
  std::optional<int64_t> found;
  for (auto run = next_run(text, 0); run; run = next_run(text, run->last)) {
    if (const auto value = value_of(text, *run)) found = value;
  }
  return found;
}

// What stands between the braces of the \boxed{ at `at`, inner pairs included; to the text's end when none closes it.
std::string_view boxed_content(std::string_view text, size_t at) {
  const size_t first = at + std::string_view("\\boxed{").size();
  int64_t depth = 1;
  for (size_t i = first; i < text.size(); ++i) {
    if (text[i] == '{') ++depth;
    if (text[i] == '}' && --depth == 0) return text.substr(first, i - first);
  }
  return text.substr(first);
}

std::optional<int64_t> last_boxed(std::string_view text) {
  for (size_t at = text.rfind("\\boxed{"); at != std::string_view::npos;
       at = at == 0 ? std::string_view::npos : text.rfind("\\boxed{", at - 1)) {
    if (const auto value = last_short(boxed_content(text, at))) return value;
  }
  return std::nullopt;
}

}  // namespace

std::optional<int64_t> parse_integer(const std::string& text) {
  std::string_view tail = text;
  if (const size_t forced = text.rfind(kForcedEnd); forced != std::string::npos) {
    tail = tail.substr(forced + kForcedEnd.size());
    if (const auto value = first_short(tail)) return value;
  } else if (const size_t end = text.find(kEndOfThought); end != std::string::npos) {
    if (const auto value = last_boxed(std::string_view(text).substr(0, end))) return value;
    tail = tail.substr(text.rfind(kEndOfThought) + kEndOfThought.size());
  }
  if (const auto value = last_short(tail)) return value;
  return last_in_range(tail);
}

}  // namespace kvc
