// A YAML or JSON file as one JSON value that remembers the line of every key, so that whoever finds a
// mistake later, however deep in the program, can name the place in the user's own file.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "harness/core/error.h"

namespace kvc {

using Json = nlohmann::ordered_json;  // keeps the order of keys as written

class ConfigText {
 public:
  // Reads a file of one YAML document or one JSON value. Throws Error(kUsage): no such file, syntax error or duplicate
  // key with its line (of JSON also the column), a second YAML document, nested more than 64 levels deep, or more than
  // 16 MiB.
  static ConfigText from_file(const std::string& path);
  static ConfigText from_string(const std::string& text, const std::string& path);

  const Json& value() const { return value_; }
  const std::string& path() const { return path_; }

  // "configs/demo.yaml:7, method[0].n_sink" for the JSON pointer "/method/0/n_sink"; the nearest known parent's line
  // if the key itself is not in the file.
  std::string where(const std::string& pointer) const;

 private:
  Json value_;
  std::string path_;
  std::map<std::string, int> lines_;  // JSON pointer -> line, from 1
};

// Collects every mistake of one file; `pointer`s are JSON pointers into it.
class Problems {
 public:
  explicit Problems(const ConfigText* text = nullptr) : text_(text) {}

  void add(const std::string& fact, const std::string& pointer, const std::string& mend);
  bool empty() const { return list_.empty(); }
  const std::vector<Problem>& list() const { return list_; }
  void throw_if_any(ErrorKind kind = ErrorKind::kUsage) const;

 private:
  const ConfigText* text_;
  std::vector<Problem> list_;
};

}  // namespace kvc
