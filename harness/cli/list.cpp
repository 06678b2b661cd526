#include "harness/cli/list.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "harness/api/budget_rule.h"
#include "harness/api/compaction_method.h"
#include "harness/api/dataset.h"
#include "harness/api/query_source.h"
#include "harness/api/special_needs.h"
#include "harness/api/task.h"
#include "harness/model/families/family.h"

namespace kvc {
namespace {

constexpr size_t kWidth = 80;

template <class Interface>
std::vector<ListedPlugin> registered() {
  std::vector<ListedPlugin> list;
  for (const auto& [name, entry] : Registry<Interface>::instance().entries()) {
    list.push_back({name, entry.source, entry.options, "", ""});
  }
  return list;
}

// Groups of methods in the order they are shown.
constexpr const char* kMethodGroups[] = {"On the cache, without queries",
                                         "On the cache, by reference queries (in brackets those of its paper)",
                                         "Around another method, whose scores or cuts it uses",
                                         "Trained for the document",
                                         "On the cache, as much as they find needed: no target, the size is measured",
                                         "On the text, which is read again",
                                         "For comparison: no target"};
enum MethodGroup : std::uint8_t { kWithoutQueries, kByQueries, kAround, kTrained, kOwnSize, kOnText, kForComparison };

// Another method among its options.
bool wraps_a_method(const ListedPlugin& listed) {
  return std::any_of(listed.options.begin(), listed.options.end(),
                     [](const OptionInfo& option) { return option.type == "plug-in"; });
}

// What a method needs, asked of one with its default options.
void describe(ListedPlugin& listed, const CompactionMethod& method) {
  const std::string queries = method.published_queries();
  const bool compares = listed.name == "full_cache" || listed.name == "no_context";
  listed.group = kMethodGroups[compares                     ? kForComparison
                               : !method.compacts_cache()   ? kOnText
                               : !method.needs_target()     ? kOwnSize
                               : listed.name == "cartridge" ? kTrained
                               : wraps_a_method(listed)     ? kAround
                               : !queries.empty()           ? kByQueries
                                                            : kWithoutQueries];
  listed.needs = queries.empty() ? "" : "[" + queries + "]";
  if (const auto* own = dynamic_cast<const SpecialNeeds*>(&method)) {
    if (const std::string needs = own->special_needs(); !needs.empty()) listed.needs += "[" + needs + "]";
  }
}

size_t group_place(const ListedPlugin& listed) {
  const auto* const found = std::find(std::begin(kMethodGroups), std::end(kMethodGroups), listed.group);
  return static_cast<size_t>(found - std::begin(kMethodGroups));
}

std::vector<ListedPlugin> methods() {
  std::vector<ListedPlugin> list = registered<CompactionMethod>();
  for (ListedPlugin& listed : list) {
    const auto* entry = Registry<CompactionMethod>::instance().find(listed.name);
    Problems problems;
    const Json options = entry->complete(Json::object(), "", problems);
    listed.group = kMethodGroups[kAround];  // cannot be made without it
    if (!problems.empty()) continue;
    try {
      describe(listed, *entry->create(options));
    } catch (const Error&) {
      continue;
    }
  }
  std::stable_sort(list.begin(), list.end(),
                   [](const ListedPlugin& a, const ListedPlugin& b) { return group_place(a) < group_place(b); });
  return list;
}

// Sources of queries that a method can be given anywhere, and those that must know what is asked.
std::vector<ListedPlugin> query_sources() {
  std::vector<ListedPlugin> list = registered<QuerySource>();
  for (ListedPlugin& listed : list) {
    const auto* entry = Registry<QuerySource>::instance().find(listed.name);
    Problems problems;
    const Json options = entry->complete(Json::object(), "", problems);
    if (!problems.empty()) continue;
    const auto source = entry->create(options);
    if (source->question_aware()) listed.needs = "[the question: in sweeps only]";
    if (const auto* own = dynamic_cast<const SpecialNeeds*>(source.get()))
      listed.needs = "[" + own->special_needs() + "]";
  }
  return list;
}

// A rule that reads a file, or whose heads share by the method's scores.
std::vector<ListedPlugin> budget_rules() {
  std::vector<ListedPlugin> list = registered<BudgetRule>();
  for (ListedPlugin& listed : list) {
    const auto* entry = Registry<BudgetRule>::instance().find(listed.name);
    const bool reads = std::any_of(listed.options.begin(), listed.options.end(),
                                   [](const OptionInfo& option) { return option.name == "file"; });
    if (reads) {
      listed.needs = "[a file]";
      continue;
    }
    Problems problems;
    const Json options = entry->complete(Json::object(), "", problems);
    if (!problems.empty()) continue;
    const bool shares = entry->create(options)->spread({TargetSize{}, {{1}}}).adaptive.has_value();
    if (shares) listed.needs = "[a method with scores]";
  }
  return list;
}

// Words of `text` in lines of at most 80 columns, each behind `indent`.
std::string wrapped(const std::string& indent, const std::string& text) {
  std::istringstream words(text);
  std::string word, line = indent, all;
  while (words >> word) {
    if (line.size() > indent.size() && line.size() + 1 + word.size() > kWidth) {
      all += line + "\n";
      line = indent;
    }
    line += (line.size() > indent.size() ? " " : "") + word;
  }
  return all + line + "\n";
}

// The source behind the line, without its last parts where both are wider than 80 columns.
std::string with_source(const std::string& line, std::string source) {
  const size_t room = kWidth - std::min(kWidth, line.size() + 2);
  while (source.size() > room) {
    size_t cut = 0;  // the last break: ", ", "; ", ": " or " ("
    for (const char* mark : {", ", "; ", ": ", " ("}) {
      const size_t at = source.rfind(mark);
      if (at != std::string::npos) cut = std::max(cut, at);
    }
    if (cut == 0) return line;
    source.resize(cut);
  }
  return source.empty() ? line : line + "  " + source;
}

std::vector<ListedPlugin> families() {
  std::vector<ListedPlugin> list;
  for (const ModelFamily& family : model_families()) list.push_back({family.name, family.description, {}, "", ""});
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
  if (kind == "methods") return methods();
  if (kind == "queries") return query_sources();
  if (kind == "budgets") return budget_rules();
  if (kind == "datasets") return registered<Dataset>();
  if (kind == "tasks") return registered<Task>();
  if (kind == "families") return families();
  throw Error(ErrorKind::kUsage, fmt::format("unknown kind '{}'", kind), "kvc list", suggest_name(kind, list_kinds()));
}

std::string list_as_text(const std::vector<ListedPlugin>& plugins) {
  size_t name_width = 0;
  std::vector<std::string> groups;
  for (const ListedPlugin& plugin : plugins) {
    name_width = std::max(name_width, plugin.name.size());
    if (std::find(groups.begin(), groups.end(), plugin.group) == groups.end()) groups.push_back(plugin.group);
  }
  std::string text;
  for (const std::string& group : groups) {
    size_t needs_width = 0;
    for (const ListedPlugin& plugin : plugins) {
      if (plugin.group == group) needs_width = std::max(needs_width, plugin.needs.size());
    }
    if (!group.empty()) text += (text.empty() ? "" : "\n") + group + "\n";
    for (const ListedPlugin& plugin : plugins) {
      if (plugin.group != group) continue;
      std::string line = fmt::format("  {:<{}}", plugin.name, name_width);
      if (needs_width > 0) line += fmt::format("  {:<{}}", plugin.needs, needs_width);
      text += with_source(line, plugin.source) + "\n";
    }
  }
  return text;
}

std::string plugin_as_text(const ListedPlugin& plugin) {
  std::string text = plugin.name + (plugin.source.empty() ? "" : "  (" + plugin.source + ")") + "\n";
  if (!plugin.needs.empty()) text += "  needs: " + plugin.needs + "\n";
  if (plugin.options.empty()) return text + "  no options\n";
  for (const OptionInfo& option : plugin.options) {
    text += fmt::format("  {}: {}, default {}\n", option.name, option.type, option.default_value.dump());
    if (!option.help.empty()) text += wrapped("      ", option.help);
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
    if (plugin.group.empty()) continue;
    list.back()["group"] = plugin.group;
    list.back()["needs"] = plugin.needs;
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
