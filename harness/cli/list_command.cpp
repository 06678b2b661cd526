// kvc list: what a sweep file can name.

#include <fmt/format.h>

#include <memory>
#include <string>

#include "harness/cli/commands.h"
#include "harness/cli/list.h"
#include "harness/cli/model_options.h"

namespace kvc {
namespace {

struct ListArguments {
  std::string kind, name;
  bool json = false;
};

std::vector<ListedPlugin> named(const ListArguments& options) {
  std::vector<ListedPlugin> plugins = list_plugins(options.kind);
  if (options.name.empty()) return plugins;
  std::vector<std::string> names;
  for (const ListedPlugin& plugin : plugins) {
    if (plugin.name == options.name) return {plugin};
    names.push_back(plugin.name);
  }
  throw Error(ErrorKind::kUsage, fmt::format("unknown name '{}' among the {}", options.name, options.kind), "kvc list",
              suggest_name(options.name, names));
}

int list(const ListArguments& options) {
  if (options.kind.empty()) {
    Json all = Json::object();
    std::string text;
    for (const std::string& kind : list_kinds()) {
      all[kind] = list_as_json(list_plugins(kind));
      text += kind + "\n" + list_as_text(list_plugins(kind)) + "\n";
    }
    print_out(options.json ? all.dump(2) + "\n" : text + "ListArguments of one: kvc list KIND NAME\n");
    return 0;
  }
  const auto plugins = named(options);
  if (options.json) {
    print_out(list_as_json(plugins).dump(2) + "\n");
  } else if (!options.name.empty()) {
    print_out(plugin_as_text(plugins.front()));
  } else {
    print_out(list_as_text(plugins) + fmt::format("\nOptions of one: kvc list {} NAME\n", options.kind));
  }
  return 0;
}

}  // namespace

Runner declare_list(CLI::App& app) {
  auto options = std::make_shared<ListArguments>();
  CLI::App* command = app.add_subcommand("list", "show what a sweep file can name: methods, data sets, tasks and more");
  command->add_option("kind", options->kind, "methods, queries, budgets, datasets, tasks or families; default: all");
  command->add_option("name", options->name, "one of them, to see its options");
  command->add_flag("--json", options->json, "as JSON, with all options");
  return [options] { return list(*options); };
}

}  // namespace kvc
