// A regular expression (PCRE2, UTF-8 with bytes that are no UTF-8 allowed) for reading answers.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {

struct PatternMatch {
  size_t begin = 0, end = 0;              // of the whole match, in bytes
  size_t group_begin = 0, group_end = 0;  // of its last group that matched; equal where none did
};

class Pattern {
 public:
  // `regex` is the program's own. Throws Error(kInternal) where it does not compile.
  explicit Pattern(const std::string& regex);
  // Every match, from left to right; they do not overlap. A match that costs too many steps ends the search: none of
  // the patterns here backtracks that far on anything but hostile text.
  std::vector<PatternMatch> all(std::string_view text) const;
  bool is_in(std::string_view text) const { return !all(text).empty(); }

 private:
  std::shared_ptr<const void> code_;
};

}  // namespace kvc
