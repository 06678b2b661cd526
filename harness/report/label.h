// Short names of plug-ins with options: "attention_matching (bias=none)".
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "harness/sweep/record.h"

namespace kvc {

class Labels {
 public:
  // Looks at the cells of all records to find which options vary. `defaults` as in tabulate.h.
  Labels(const std::vector<Record>& records, const Json& defaults);

  // `kind` is "method", "queries", "dataset", "task" or "model"; null gives "".
  std::string of(const std::string& kind, const Json& plugin) const;

 private:
  std::string value_text(const Json& value) const;
  std::string file_text(const std::string& path) const;
  bool shown(const std::string& kind, const Json& plugin, const std::string& option) const;

  std::map<std::pair<std::string, std::string>, std::set<std::string>> varying_;  // (kind, name) -> options
  std::map<std::string, std::set<std::string>> files_;                            // stem -> paths of budget files
  Json defaults_;
};

std::string plugin_name(const Json& plugin);  // "?" where it has none
// Whether a user's `wanted`, a label or a plug-in's name, means this plug-in; "" means every one.
bool is_chosen(const std::string& wanted, const std::string& label, const Json& plugin);

}  // namespace kvc
