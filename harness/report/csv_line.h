// A line of a CSV file (RFC 4180).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/report/statistics.h"

namespace kvc {

// The fields of one line, in order; an empty field where there is no value.
class CsvLine {
 public:
  CsvLine& add(const std::string& text);
  CsvLine& add(double value);
  CsvLine& add(int64_t value);
  CsvLine& add(const std::optional<double>& value) { return value ? add(*value) : add(std::string()); }
  CsvLine& add_range(bool exists, double low, double high) {
    return exists ? add(low).add(high) : add(std::string()).add(std::string());
  }
  CsvLine& add_range(const Interval& interval) { return add_range(interval.exists(), interval.low, interval.high); }
  CsvLine& skip(size_t n);
  std::string text(char separator = ',') const;

 private:
  std::vector<std::string> fields_;
};

}  // namespace kvc
