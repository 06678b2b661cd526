#include "harness/cli/cli.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "harness/cli/list.h"
#include "harness/cli/model_commands.h"
#include "harness/core/json_lines.h"
#include "harness/report/report.h"
#include "harness/sweep/cell.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_config.h"

namespace kvc {
namespace {

constexpr int kSomeFailed = 1;

struct Arguments {
  std::string config;
  std::string results;
  std::string folder;
  std::string output;
  std::string kind;
  bool dry_run = false;
  bool quiet = false;
  bool skip_proof = false;
  bool json = false;
  int threads = 0;
};

std::string plural(int64_t count, const std::string& noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

// Of the terminal that is written to, at least 60; what COLUMNS says, or a usual width, where there is none.
size_t terminal_width() {
  winsize size{};
  if (::isatty(STDOUT_FILENO) == 1 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return std::max<size_t>(60, size.ws_col);
  const char* const columns = std::getenv("COLUMNS");
  const int64_t wanted = columns == nullptr ? 0 : std::strtol(columns, nullptr, 10);
  return wanted >= 60 && wanted <= 10000 ? static_cast<size_t>(wanted) : kTerminalWidth;
}

void show_report(const std::string& folder) {
  const Json defaults = option_defaults();
  write_report(folder, defaults);
  fmt::print("{}", report_table(folder, defaults, terminal_width()));
  std::fflush(stdout);
}

int dry_run(const SweepConfig& config) {
  int64_t n_cells = 0;
  for (const CellStatus& cell : sweep_status(config)) {
    fmt::print("{}  {}  {}\n", cell.id, cell.done > 0 ? fmt::format("{:>4} done", cell.done) : "     new ", cell.label);
    ++n_cells;
  }
  fmt::print("{} = {} x {} x {} x {} x methods with their queries and targets; results in {}\n",
             plural(n_cells, "cell"), plural(static_cast<int64_t>(config.models.size()), "model"),
             plural(static_cast<int64_t>(config.seeds.size()), "seed"),
             plural(static_cast<int64_t>(config.datasets.size()), "data set"),
             plural(static_cast<int64_t>(config.tasks.size()), "task"), config.results);
  return 0;
}

int run(const Arguments& arguments) {
  SweepConfig config = load_sweep(arguments.config);
  if (!arguments.results.empty()) config.results = arguments.results;
  if (arguments.dry_run) return dry_run(config);
  RunOptions options;
  options.quiet = arguments.quiet;
  options.skip_proof = arguments.skip_proof;
  const RunSummary summary = run_sweep(config, options);
  show_report(config.results);
  if (!arguments.quiet) {
    fmt::print(stderr, "{} measured, {} found; records and report in {}\n", plural(summary.measured, "record"),
               summary.already_done, config.results);
  }
  if (summary.failed == 0) return 0;
  fmt::print(stderr,
             "error: {} failed\n  where: {}\n  mend:  see \"error\" in the records; the same command tries again what "
             "failed\n",
             plural(summary.failed, "record"), config.results);
  return kSomeFailed;
}

int report(const Arguments& arguments) {
  show_report(arguments.folder);
  return 0;
}

// A results folder takes every *.jsonl in it for records.
void check_no_record(const std::string& output, const std::string& folder) {
  namespace fs = std::filesystem;
  const fs::path path = fs::weakly_canonical(fs::path(output));
  if (path.extension() != ".jsonl" || path.parent_path() != fs::weakly_canonical(fs::path(folder) / ".")) return;
  throw Error(ErrorKind::kUsage, "scores among the records would be read as records", "--output " + output,
              "write them elsewhere, or end the name with .txt");
}

int score(const Arguments& arguments) {
  if (!arguments.output.empty()) check_no_record(arguments.output, arguments.folder);
  std::vector<Failure> failures;
  const std::string lines = score_answers(arguments.folder, failures, option_defaults());
  if (arguments.output.empty()) {
    fmt::print("{}", lines);
  } else {
    write_file_atomically(arguments.output, lines);
  }
  for (const Failure& failure : failures)
    fmt::print(stderr, "not scored: {}, document '{}': {}\n", failure.label, failure.document_id, failure.error);
  return failures.empty() ? 0 : kSomeFailed;
}

int list(const Arguments& arguments) {
  const auto plugins = list_plugins(arguments.kind);
  fmt::print("{}", arguments.json ? list_as_json(plugins).dump(2) + "\n" : list_as_text(plugins));
  return 0;
}

int validate(const Arguments& arguments) {
  const SweepConfig config = load_sweep(arguments.config);
  fmt::print("{} is right: sweep '{}', {}\n", arguments.config, config.name,
             plural(static_cast<int64_t>(expand(config).size()), "cell"));
  return 0;
}

int dispatch(const CLI::App& app, const Arguments& arguments, const std::map<std::string, Runner>& model_commands) {
  if (arguments.threads > 0) at::set_num_threads(arguments.threads);
  for (const auto& [name, run_command] : model_commands) {
    if (app.got_subcommand(name)) return run_command();
  }
  if (app.got_subcommand("run")) return run(arguments);
  if (app.got_subcommand("report")) return report(arguments);
  if (app.got_subcommand("score")) return score(arguments);
  if (app.got_subcommand("list")) return list(arguments);
  return validate(arguments);
}

// Returns what runs the commands that declare themselves.
std::map<std::string, Runner> declare(CLI::App& app, Arguments& arguments) {
  app.require_subcommand(1);
  app.set_version_flag("--version", "kvc " KVC_VERSION);
  app.add_option("--threads", arguments.threads, "threads of the processor; default: all cores")
      ->check(CLI::Range(1, 4096));
  app.fallthrough();

  CLI::App* run_command =
      app.add_subcommand("run", "measure what is missing of a sweep, then write and print its report");
  run_command->add_option("config", arguments.config, "sweep file, YAML or JSON")->required();
  run_command->add_option("--results", arguments.results, "folder of the records; default: as the file says");
  run_command->add_flag("--dry-run", arguments.dry_run,
                        "show the cells and how many documents are done, measure nothing");
  run_command->add_flag("--quiet", arguments.quiet, "no progress on stderr");
  run_command->add_flag("--skip-proof", arguments.skip_proof, "leave out the self-proof; every record says so");

  CLI::App* report_command = app.add_subcommand("report", "write and print the report of a results folder");
  report_command->add_option("folder", arguments.folder, "results folder")->required();

  CLI::App* score_command =
      app.add_subcommand("score", "judge the stored answers of a results folder anew: a JSON line per question");
  score_command->add_option("folder", arguments.folder, "results folder")->required();
  score_command->add_option("--output", arguments.output, "file to write; default: standard output");

  CLI::App* list_command = app.add_subcommand("list", "what can stand in a sweep file, with options");
  list_command->add_option("kind", arguments.kind, "methods, queries, budgets, datasets, tasks or families")
      ->required();
  list_command->add_flag("--json", arguments.json, "as JSON");

  CLI::App* validate_command = app.add_subcommand("validate", "check a sweep file without running it");
  validate_command->add_option("config", arguments.config, "sweep file, YAML or JSON")->required();

  return {{"ask", declare_ask(app)},           {"budget", declare_budget(app)},
          {"capture", declare_capture(app)},   {"compact", declare_compact(app)},
          {"fit", declare_fit(app)},           {"inspect", declare_inspect(app)},
          {"generate", declare_generate(app)}, {"perplexity", declare_perplexity(app)},
          {"tokenize", declare_tokenize(app)}};
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
  Arguments arguments;
  const std::map<std::string, Runner> model_commands = declare(app, arguments);
  try {
    check_command(app, argc, argv);
    app.parse(argc, argv);
    return dispatch(app, arguments, model_commands);
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
