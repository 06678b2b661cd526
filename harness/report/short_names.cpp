#include "harness/report/short_names.h"

#include <fmt/format.h>

#include "harness/report/text_table.h"

namespace kvc {

ShortNames short_names(const std::vector<std::string>& labels, size_t width) {
  std::map<std::string, int> bases;
  const auto base_of = [](const std::string& label) { return label.substr(0, label.find_first_of(" ,")); };
  for (const std::string& label : labels) ++bases[base_of(label)];
  ShortNames result;
  int number = 0;
  for (const std::string& label : labels) {
    if (result.names.count(label) > 0) continue;
    if (text_width(label) <= width) {
      result.names[label] = label;
      continue;
    }
    const std::string base = base_of(label);
    const bool plain = label.find(" (") == std::string::npos;  // nothing but the name and its queries
    if (plain && bases.at(base) == 1) {
      result.names[label] = base;
      continue;
    }
    ++number;
    result.names[label] = fmt::format("{} [{}]", base, number);
    result.notes.push_back(fmt::format("[{}] {}", number, label));
  }
  return result;
}

}  // namespace kvc
