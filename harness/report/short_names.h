// Names of methods that fit a narrow table or the end of a line: "snapkv", "kvzip [2]", with what the numbers stand for
// in notes.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace kvc {

struct ShortNames {
  std::map<std::string, std::string> names;  // by label
  std::vector<std::string> notes;            // "[2] kvzip (budget=adaptive), repeat_prefill", by number

  const std::string& of(const std::string& label) const { return names.at(label); }
};

// A label of at most `width` letters stays as it is, where no other label is equal.
ShortNames short_names(const std::vector<std::string>& labels, size_t width);

}  // namespace kvc
