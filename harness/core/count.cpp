#include "harness/core/count.h"

namespace kvc {

std::string noun_of(int64_t n, std::string_view noun) {
  std::string text(noun);
  if (n == 1 || text.empty()) return text;
  const auto vowel = [](char c) { return std::string_view("aeiou").find(c) != std::string_view::npos; };
  if (text.size() > 1 && text.back() == 'y' && !vowel(text[text.size() - 2])) {
    text.back() = 'i';
    return text + "es";
  }
  for (const std::string_view ending : {"s", "x", "ch", "sh"}) {
    if (text.ends_with(ending)) return text + "es";
  }
  return text + "s";
}

std::string count(int64_t n, std::string_view noun) {
  return std::to_string(n) + " " + noun_of(n, noun);
}

}  // namespace kvc
