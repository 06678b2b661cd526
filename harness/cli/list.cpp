#include "harness/cli/list.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/api/budget_rule.h"
#include "harness/api/compaction_method.h"
#include "harness/api/dataset.h"
#include "harness/api/query_source.h"
#include "harness/api/task.h"
#include "harness/model/families/family.h"

namespace kvc {
namespace {

template <class Interface>
std::vector<ListedPlugin> registered() {
  std::vector<ListedPlugin> list;
  for (const auto& [name, entry] : Registry<Interface>::instance().entries()) {
    list.push_back({name, entry.source, entry.options});
  }
  return list;
}

std::vector<ListedPlugin> families() {
  std::vector<ListedPlugin> list;
  for (const ModelFamily& family : model_families()) list.push_back({family.name, family.description, {}});
  return list;
}

Json defaults_of(const std::vector<ListedPlugin>& plugins) {
  Json defaults = Json::object();
  for (const ListedPlugin& plugin : plugins) {
    defaults[plugin.name] = Json::object();
    for (const OptionInfo& option : plugin.options) defaults[plugin.name][option.name] = option.default_value;
  }
  return defaults;
}

}  // namespace

const std::vector<std::string>& list_kinds() {
  static const std::vector<std::string> kinds = {"methods", "queries", "budgets", "datasets", "tasks", "families"};
  return kinds;
}

std::vector<ListedPlugin> list_plugins(const std::string& kind) {
  if (kind == "methods") return registered<CompactionMethod>();
  if (kind == "queries") return registered<QuerySource>();
  if (kind == "budgets") return registered<BudgetRule>();
  if (kind == "datasets") return registered<Dataset>();
  if (kind == "tasks") return registered<Task>();
  if (kind == "families") return families();
  throw Error(ErrorKind::kUsage, fmt::format("there is no list of '{}'", kind), "kvc list",
              suggest_name(kind, list_kinds()));
}

std::string list_as_text(const std::vector<ListedPlugin>& plugins) {
  std::string text;
  for (const ListedPlugin& plugin : plugins) {
    text += plugin.name + (plugin.source.empty() ? "" : "  (" + plugin.source + ")") + "\n";
    size_t name_width = 0;
    size_t type_width = 0;
    for (const OptionInfo& option : plugin.options) {
      name_width = std::max(name_width, option.name.size());
      type_width = std::max(type_width, option.type.size() + 3 + option.default_value.dump().size());
    }
    for (const OptionInfo& option : plugin.options) {
      const std::string type = fmt::format("{} = {}", option.type, option.default_value.dump());
      text += fmt::format("    {:<{}}  {:<{}}  {}\n", option.name, name_width, type, type_width, option.help);
    }
  }
  return text;
}

Json list_as_json(const std::vector<ListedPlugin>& plugins) {
  Json list = Json::array();
  for (const ListedPlugin& plugin : plugins) {
    Json options = Json::array();
    for (const OptionInfo& option : plugin.options) {
      options.push_back(
          Json{{"name", option.name}, {"type", option.type}, {"default", option.default_value}, {"help", option.help}});
    }
    list.push_back(Json{{"name", plugin.name}, {"source", plugin.source}, {"options", std::move(options)}});
  }
  return list;
}

Json option_defaults() {
  return Json{{"method", defaults_of(list_plugins("methods"))},
              {"queries", defaults_of(list_plugins("queries"))},
              {"budget", defaults_of(list_plugins("budgets"))},
              {"dataset", defaults_of(list_plugins("datasets"))},
              {"task", defaults_of(list_plugins("tasks"))}};
}

}  // namespace kvc
