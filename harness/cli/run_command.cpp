// kvc run and validate: a sweep file measured, or only checked.

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>

#include "harness/cli/commands.h"
#include "harness/cli/show_report.h"
#include "harness/sweep/cell.h"
#include "harness/sweep/preflight.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_config.h"

namespace kvc {
namespace {

constexpr int kSomeFailed = 1;

struct Options {
  std::string config, results;
  bool dry_run = false;
  bool quiet = false;
  bool skip_proof = false;
  bool config_only = false;
};

std::string plural(int64_t count, const std::string& noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

// Prints what is fine and throws Error(kData) with all that is not.
void check_inputs(const SweepConfig& config) {
  const Preflight found = check_sweep(config);
  for (const std::string& fact : found.facts) fmt::print("  {}\n", fact);
  std::fflush(stdout);
  throw_if_any(ErrorKind::kData, found.problems, config.path);
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
  check_inputs(config);
  return 0;
}

int run(const Options& options) {
  SweepConfig config = load_sweep(options.config);
  if (!options.results.empty()) config.results = options.results;
  if (options.dry_run) return dry_run(config);
  check_report_files(config.results);
  RunOptions run_options;
  run_options.quiet = options.quiet;
  run_options.skip_proof = options.skip_proof;
  const RunSummary summary = run_sweep(config, run_options);
  show_report(config.results);
  if (!options.quiet) {
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

int validate(const Options& options) {
  const SweepConfig config = load_sweep(options.config);
  fmt::print("{} is valid: sweep '{}', {}\n", options.config, config.name,
             plural(static_cast<int64_t>(expand(config).size()), "cell"));
  if (!options.config_only) check_inputs(config);
  return 0;
}

}  // namespace

Runner declare_run(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("run", "measure what is missing of a sweep, then write and print its report");
  command->add_option("config", options->config, "sweep file, YAML or JSON")->required();
  command->add_option("--results", options->results, "folder of the records; default: the one the file names");
  command->add_flag("--dry-run", options->dry_run,
                    "show the cells and how many documents are done, check data and models, measure nothing");
  command->add_flag("--quiet", options->quiet, "no progress on stderr");
  command->add_flag("--skip-proof", options->skip_proof, "skip the self-proof; every record says so");
  return [options] { return run(*options); };
}

Runner declare_validate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("validate", "check a sweep file, its data and its models' headers without running it");
  command->add_option("config", options->config, "sweep file, YAML or JSON")->required();
  command->add_flag("--config-only", options->config_only, "check the file alone; data and models may be elsewhere");
  return [options] { return validate(*options); };
}

}  // namespace kvc
