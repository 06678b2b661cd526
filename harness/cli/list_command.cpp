// kvc list: what a sweep file can name.

#include <fmt/format.h>

#include <memory>
#include <string>

#include "harness/cli/commands.h"
#include "harness/cli/list.h"

namespace kvc {
namespace {

struct Options {
  std::string kind;
  bool json = false;
};

int list(const Options& options) {
  const auto plugins = list_plugins(options.kind);
  fmt::print("{}", options.json ? list_as_json(plugins).dump(2) + "\n" : list_as_text(plugins));
  return 0;
}

}  // namespace

Runner declare_list(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("list", "show what a sweep file can name, with options");
  command->add_option("kind", options->kind, "methods, queries, budgets, datasets, tasks or families")->required();
  command->add_flag("--json", options->json, "as JSON");
  return [options] { return list(*options); };
}

}  // namespace kvc
