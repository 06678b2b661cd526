#include "harness/tasks/judging/paper_choice.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace kvc {
namespace {

constexpr std::string_view kSpace = " \t\r\n\f\v";

std::string_view strip(std::string_view text) {
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

std::string without_asterisks(std::string_view text) {
  std::string result(text);
  std::erase(result, '*');
  return result;
}

bool is_ascii_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Accented Latin letters (U+00C0 to U+024F without the multiplication and division signs) in UTF-8: "Cézanne" holds no
// letter C, while a C in curly quotes is one.
bool is_accented_letter(std::string_view text, size_t at) {
  if (at + 1 >= text.size()) return false;
  const auto lead = static_cast<unsigned char>(text[at]);
  const auto next = static_cast<unsigned char>(text[at + 1]);
  const bool is_sign = lead == 0xC3 && (next == 0x97 || next == 0xB7);
  return lead >= 0xC3 && lead <= 0xC9 && (next & 0xC0) == 0x80 && !is_sign;
}

bool letter_follows(std::string_view text, size_t end) {
  return end < text.size() && (is_ascii_letter(text[end]) || is_accented_letter(text, end));
}

bool letter_precedes(std::string_view text, size_t begin) {
  if (begin >= 1 && is_ascii_letter(text[begin - 1])) return true;
  return begin >= 2 && is_accented_letter(text, begin - 2);
}

std::string_view last_line(std::string_view text) {
  text = strip(text);
  const size_t newline = text.rfind('\n');
  return strip(newline == std::string_view::npos ? text : text.substr(newline + 1));
}

// The option named by a lower-case letter.
std::optional<int64_t> option_of(char c, int64_t n_options) {
  const int64_t index = c - 'a';
  return index >= 0 && index < n_options ? std::optional(index) : std::nullopt;
}

std::optional<int64_t> letter_behind(std::string_view text, std::string_view pattern, int64_t n_options) {
  const size_t at = text.rfind(pattern);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view rest = strip(text.substr(at + pattern.size()));
  rest.remove_prefix(std::min(rest.find_first_not_of(':'), rest.size()));
  const std::string bare = without_asterisks(strip(rest));
  return bare.empty() ? std::nullopt : option_of(bare[0], n_options);
}

std::optional<int64_t> last_capital(std::string_view text, int64_t n_options) {
  for (size_t i = text.size(); i-- > 0;) {
    const bool is_option = text[i] >= 'A' && text[i] - 'A' < n_options;
    if (is_option && !letter_precedes(text, i) && !letter_follows(text, i + 1)) return text[i] - 'A';
  }
  return std::nullopt;
}

}  // namespace

std::optional<int64_t> paper_choice(const std::string& text, int64_t n_options) {
  constexpr std::string_view kEndOfThought = "</think>";
  const size_t thought = text.rfind(kEndOfThought);
  std::string_view answer = text;
  if (thought != std::string::npos) {
    answer = strip(answer.substr(thought + kEndOfThought.size()));
  } else if (text.find("<think>") != std::string::npos) {
    return std::nullopt;
  } else {
    answer = last_line(answer);
  }
  const std::string lowered = lower(answer);
  constexpr std::array<std::string_view, 3> kPatterns = {"answer:", "answer is", "correct option is"};
  for (const std::string_view pattern : kPatterns) {
    if (const auto option = letter_behind(lowered, pattern, n_options)) return option;
  }
  const std::string before_stop = without_asterisks(strip(std::string_view(lowered).substr(0, lowered.find('.'))));
  if (before_stop.size() == 1) {
    if (const auto option = option_of(before_stop[0], n_options)) return option;
  }
  return last_capital(answer, n_options);
}

}  // namespace kvc
