#include "harness/cli/cli.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "harness/cli/commands.h"
#include "harness/core/build_info.h"
#include "harness/core/error.h"

namespace kvc {
namespace {

struct Command {
  const char* group;  // heading in the help
  Runner (*declare)(CLI::App&);
};

// In the order of the help.
constexpr std::array kCommands = {
    Command{"Sweeps", declare_run},        Command{"Sweeps", declare_validate},
    Command{"Sweeps", declare_submit},     Command{"Sweeps", declare_merge},
    Command{"Sweeps", declare_report},     Command{"Sweeps", declare_score},
    Command{"Sweeps", declare_plot},       Command{"Sweeps", declare_table},
    Command{"Sweeps", declare_compare},    Command{"Sweeps", declare_export},
    Command{"Sweeps", declare_list},       Command{"One document", declare_compact},
    Command{"One document", declare_ask},  Command{"One document", declare_capture},
    Command{"One document", declare_fit},  Command{"One document", declare_budget},
    Command{"Models", declare_inspect},    Command{"Models", declare_generate},
    Command{"Models", declare_perplexity}, Command{"Models", declare_tokenize},
};

struct Declared {
  std::map<std::string, Runner> runners;  // by name of the command
  int threads = 0;                        // 0: all cores
};

std::string version_text() {
  const BuildInfo& info = build_info();
  std::string commit = info.commit.empty() ? "unknown (built outside of a git checkout)" : info.commit.substr(0, 12);
  if (info.dirty) commit += ", with changes that are not committed";
  return fmt::format(
      "kvc {}\n  commit        {}\n  compiler      {}, {}\n  LibTorch      {}\n  CUDA          {}\n"
      "  CPU features  {}",
      info.version, commit, info.compiler, info.build_type, info.libtorch, info.cuda.empty() ? "none" : info.cuda,
      cpu_features());
}

void declare(CLI::App& app, Declared& declared) {
  app.require_subcommand(1);
  app.set_version_flag("--version,-V", version_text, "version, commit, compiler and libraries of this program");
  app.add_option("--threads", declared.threads, "threads of the processor; default: all cores")
      ->check(CLI::Range(1, 4096));
  app.fallthrough();
  for (const Command& command : kCommands) {
    Runner runner = command.declare(app);
    CLI::App* added = app.get_subcommands({}).back();
    added->group(command.group);
    declared.runners.emplace(added->get_name(), std::move(runner));
  }
}

int dispatch(const CLI::App& app, const Declared& declared) {
  if (declared.threads > 0) at::set_num_threads(declared.threads);
  return declared.runners.at(app.get_subcommands().front()->get_name())();
}

// CLI11 calls a misspelt command a missing one.
void check_command(const CLI::App& app, int argc, const char* const* argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands({})) known.push_back(command->get_name());
  if (std::find(known.begin(), known.end(), argv[1]) != known.end()) return;
  throw Error(ErrorKind::kUsage, fmt::format("unknown command '{}'", argv[1]), "", suggest_name(argv[1], known));
}

}  // namespace

int run_cli(int argc, const char* const* argv) {
  CLI::App app("Compacts KV caches with many methods and measures what is left of a model's answers.", "kvc");
  Declared declared;
  declare(app, declared);
  try {
    check_command(app, argc, argv);
    app.parse(argc, argv);
    return dispatch(app, declared);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    fmt::print(stderr, "error: {}\n  mend:  kvc --help, or kvc COMMAND --help\n", e.what());
    return exit_code(ErrorKind::kUsage);
  } catch (const Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return exit_code(e.kind());
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "error: out of memory\n  mend:  free memory, or take a smaller model or shorter documents\n");
    return exit_code(ErrorKind::kData);
  } catch (const std::exception& e) {
    fmt::print(stderr,
               "error: {}\n  mend:  this is a mistake of kvc itself; please report it with the command you ran\n",
               e.what());
    return exit_code(ErrorKind::kInternal);
  }
}

}  // namespace kvc
