#include "harness/report/csv_line.h"

#include <fmt/format.h>

namespace kvc {
namespace {

std::string quoted(const std::string& text, char separator) {
  if (text.find_first_of("\"\r\n") == std::string::npos && text.find(separator) == std::string::npos) return text;
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
  return result + "\"";
}

}  // namespace

CsvLine& CsvLine::add(const std::string& text) {
  fields_.push_back(text);
  return *this;
}

CsvLine& CsvLine::add(double value) {
  return add(fmt::format("{}", value));
}

CsvLine& CsvLine::add(int64_t value) {
  return add(fmt::format("{}", value));
}

CsvLine& CsvLine::skip(size_t n) {
  fields_.insert(fields_.end(), n, "");
  return *this;
}

std::string CsvLine::text(char separator) const {
  std::string line;
  for (size_t i = 0; i < fields_.size(); ++i) {
    if (i > 0) line += separator;
    line += quoted(fields_[i], separator);
  }
  return line + "\n";
}

}  // namespace kvc
