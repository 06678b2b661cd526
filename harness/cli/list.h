// kvc list: what is registered, with options.
#pragma once

#include <string>
#include <vector>

#include "harness/core/options.h"

namespace kvc {

struct ListedPlugin {
  std::string name;
  std::string source;
  std::vector<OptionInfo> options;
};

// kind: methods, queries, datasets, tasks, families. Throws Error(kUsage) for another one.
std::vector<ListedPlugin> list_plugins(const std::string& kind);
const std::vector<std::string>& list_kinds();

std::string list_as_text(const std::vector<ListedPlugin>& plugins);
// [{name, source, options: [{name, type, default, help}]}]
Json list_as_json(const std::vector<ListedPlugin>& plugins);

// {"method": {NAME: {OPTION: VALUE}}, "queries": ..., "dataset": ..., "task": ...}: what the report leaves out of its
// labels.
Json option_defaults();

}  // namespace kvc
