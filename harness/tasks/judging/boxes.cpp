#include "harness/tasks/judging/boxes.h"

#include <cstdint>

#include "harness/tasks/judging/pattern.h"

namespace kvc {

std::vector<std::string_view> boxes_of(std::string_view text) {
  static const Pattern opening(R"(\\f?boxed\s*\{|\\fbox\s*\{)");
  std::vector<std::string_view> list;
  for (const PatternMatch& match : opening.all(text)) {
    int64_t depth = 1;
    for (size_t i = match.end; i < text.size(); ++i) {
      if (text[i] == '{') ++depth;
      if (text[i] == '}' && --depth == 0) {
        list.push_back(text.substr(match.end, i - match.end));
        break;
      }
    }
  }
  return list;
}

}  // namespace kvc
