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
  std::string group;  // heading of a method in the list: how it compacts
  std::string needs;  // of a method, e.g. "target, queries (context_prefill)"; "" for other kinds
};

// kind: methods, queries, datasets, tasks, families. Throws Error(kUsage) for another one.
std::vector<ListedPlugin> list_plugins(const std::string& kind);
const std::vector<std::string>& list_kinds();

// A line for each, at most 80 columns wide where its source allows; methods by group, with what they need.
std::string list_as_text(const std::vector<ListedPlugin>& plugins);
// One plug-in with all its options.
std::string plugin_as_text(const ListedPlugin& plugin);
// [{name, source, options: [{name, type, default, help}]}]; methods also have group and needs.
Json list_as_json(const std::vector<ListedPlugin>& plugins);

// {"method": {NAME: {OPTION: VALUE}}, "queries": ..., "dataset": ..., "task": ...}: what the report leaves out of its
// labels.
Json option_defaults();

}  // namespace kvc
