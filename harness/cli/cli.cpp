#include "harness/cli/cli.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <map>
#include <string>

#include "harness/cli/commands.h"
#include "harness/cli/parse_errors.h"
#include "harness/core/build_info.h"
#include "harness/core/error.h"

namespace kvc {
namespace {

struct Command {
  const char* group;  // heading in the help
  Runner (*declare)(CLI::App&);
};

// In the order of the help.
// clang-format off
constexpr std::array kCommands = {
    Command{"Start here", declare_new},
    Command{"Start here", declare_doctor},
    Command{"Start here", declare_list},
    Command{"Start here", declare_recommend},
    Command{"Sweeps", declare_run},
    Command{"Sweeps", declare_validate},
    Command{"Sweeps", declare_submit},
    Command{"Sweeps", declare_merge},
    Command{"Sweeps", declare_import},
    Command{"Reports", declare_report},
    Command{"Reports", declare_score},
    Command{"Reports", declare_explain},
    Command{"Reports", declare_plot},
    Command{"Reports", declare_table},
    Command{"Reports", declare_compare},
    Command{"Reports", declare_export},
    Command{"One document", declare_compact},
    Command{"One document", declare_ask},
    Command{"One document", declare_capture},
    Command{"One document", declare_fit},
    Command{"One document", declare_budget},
    Command{"Models", declare_inspect},
    Command{"Models", declare_generate},
    Command{"Models", declare_perplexity},
    Command{"Models", declare_tokenize},
    Command{"Shell", declare_completion},
};
// clang-format on

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

constexpr const char* kFirstSteps =
    "kvc measures how much of a model's KV cache can be thrown away. What to do next:\n"
    "  kvc doctor                                         check model, data, disk and GPU\n"
    "  kvc new sweep.yaml --model MODEL --data DATA       write a sweep file to start from\n"
    "  kvc run sweep.yaml                                 measure it and print the table\n"
    "  kvc recommend --model MODEL --data DATA            how much of the cache may go, with a guarantee\n"
    "  kvc list methods                                   see what can be compared\n"
    "  kvc --help                                         all commands\n";

}  // namespace

int run_cli(int argc, const char* const* argv) {
  CLI::App app("Compacts KV caches with many methods and measures what is left of a model's answers.", "kvc");
  Declared declared;
  declare(app, declared);
  try {
    if (argc < 2) {
      fmt::print(stderr, "{}", kFirstSteps);
      return exit_code(ErrorKind::kUsage);
    }
    check_names(app, argc, argv);
    app.parse(argc, argv);
    return dispatch(app, declared);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    fmt::print(stderr, "error: {}\n", parse_error(app, e).what());
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
