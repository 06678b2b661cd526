// kvc run and validate: a sweep file measured, or only checked.

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "harness/cli/commands.h"
#include "harness/cli/list.h"
#include "harness/cli/show_report.h"
#include "harness/cli/starter.h"
#include "harness/cli/sweep_rule.h"
#include "harness/cli/text_output.h"
#include "harness/core/count.h"
#include "harness/core/output_file.h"
#include "harness/core/progress.h"
#include "harness/report/value_table.h"
#include "harness/sweep/cell.h"
#include "harness/sweep/known_blocks.h"
#include "harness/sweep/preflight.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_blocks.h"
#include "harness/sweep/sweep_config.h"
#include "harness/sweep/sweep_plan.h"

namespace kvc {
namespace {

struct RunArguments {
  std::string config, results, shard, within, log, progress = "text", ask_together;
  bool dry_run = false;
  bool quiet = false;
  bool skip_proof = false;
  bool config_only = false;
  bool no_plan = false;
};

// A file that an entry of the sweep names is a mistake in the sweep file, alone or beside others.
ErrorKind kind_of(const LoadedSweep& loaded) {
  return loaded.complete() ? ErrorKind::kData : ErrorKind::kUsage;
}

// Prints what is fine and throws Error with all that is not.
void check_inputs(const LoadedSweep& loaded) {
  const Preflight found = check_sweep(loaded.sweep, loaded.of_files);
  for (const std::string& fact : found.facts) fmt::print("  {}\n", fact);
  std::fflush(stdout);
  throw_if_any(kind_of(loaded), found.problems, loaded.sweep.path);
}

// What a run refuses before it reads weights: all problems of the models that are still to be measured together.
void check_before_run(const LoadedSweep& loaded, const RunOptions& options) {
  const std::vector<ModelProblems> models = check_models(loaded.sweep);
  const auto fine = [](const ModelProblems& one) { return one.problems.empty(); };
  if (loaded.complete() && std::all_of(models.begin(), models.end(), fine)) return;
  std::vector<Problem> problems = loaded.of_files;
  std::set<const SweepModel*> needed;
  if (loaded.complete()) needed = models_to_load(loaded.sweep, options.shard, options.stop_rule);
  for (const ModelProblems& one : models) {
    // Without all entries nobody knows what is measured.
    if (!loaded.complete() || needed.contains(one.model))
      problems.insert(problems.end(), one.problems.begin(), one.problems.end());
  }
  throw_if_any(kind_of(loaded), problems, loaded.sweep.path);
}

// SweepConfig::ask_together from "auto" or a number.
int64_t caches_together(const std::string& text) {
  if (text == "auto") return 0;
  int64_t caches = 0;
  const char* end = text.data() + text.size();
  const auto [rest, problem] = std::from_chars(text.data(), end, caches);
  if (problem == std::errc() && rest == end && caches >= 1) return caches;
  throw Error(ErrorKind::kUsage, fmt::format("must be auto or a number from 1; got '{}'", text), "--ask-together",
              "write --ask-together 1 to ask each cache alone, or leave it out");
}

int dry_run(const LoadedSweep& loaded, const RunArguments& options) {
  if (!loaded.complete()) check_inputs(loaded);  // throws
  const SweepConfig& config = loaded.sweep;
  const double within_s = options.within.empty() ? 0 : parse_duration(options.within);
  if (sweep_rule(config)) fmt::print("stop_when: what follows counts every cell on every document; less is measured\n");
  for (const CellStatus& cell : sweep_status(config)) {
    fmt::print("{}  {}  {}\n", cell.id, cell.done > 0 ? fmt::format("{:>4} done", cell.done) : "     new ", cell.label);
  }
  check_inputs(loaded);
  PlanOptions plan_options;
  plan_options.quiet = options.quiet;
  plan_options.skip_proof = options.skip_proof;
  fmt::print("{}results in {}\n", plan_text(plan_sweep(config, plan_options), within_s), config.results);
  return 0;
}

// "planned 9 min, took 10 min"
std::string plan_outcome(const RunSummary& summary) {
  if (summary.planned_s <= 0) return "";
  return fmt::format("; planned {}{}, took {}", duration_text(summary.planned_s),
                     summary.planned_all ? "" : " for what could be planned", duration_text(summary.took_s));
}

// What every method did on the first document, by the sweep's first task; without intervals, as one document has none.
std::string first_look(const SweepConfig& config, const std::string& folder) {
  ValueTableOptions table;
  table.task = config.tasks.front().value("name", "");
  table.intervals = false;
  try {
    return value_table({load_report(folder, option_defaults(), false)}, table);
  } catch (const Error&) {
    return "";  // every cell failed on it; the report at the end says why
  }
}

// A log as Progress writes it; an empty file is one too.
bool holds_log(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return true;
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json.contains("event") && json.contains("expected");
  int year = 0, month = 0, day = 0, hour = 0;
  return std::sscanf(line.c_str(), "%4d-%2d-%2dT%2d:", &year, &month, &day, &hour) == 4;
}

ProgressOptions progress_options(const RunArguments& options, const std::string& records) {
  check_text_output(options.log, records, "--log");
  check_outputs({{"--log", options.log, holds_log}}, {options.config}, /*replace=*/true);
  return {options.quiet, options.progress == "json", options.log};
}

int run_run(const RunArguments& options) {
  LoadedSweep loaded = load_sweep_and_files(options.config);
  SweepConfig& config = loaded.sweep;
  if (!options.results.empty()) config.results = options.results;
  if (!options.ask_together.empty()) config.ask_together = caches_together(options.ask_together);
  if (options.dry_run) return dry_run(loaded, options);
  if (!options.within.empty()) {
    throw Error(ErrorKind::kUsage, "--within belongs to --dry-run", "--within " + options.within,
                "kvc run CONFIG --dry-run --within " + options.within + " says how many shards that takes");
  }
  check_report_files(config.results);
  RunOptions run_options;
  run_options.quiet = options.quiet;
  run_options.skip_proof = options.skip_proof;
  run_options.plan = !options.no_plan;
  if (loaded.complete()) run_options.stop_rule = sweep_rule(config);
  if (options.shard.empty()) {
    run_options.first_look = [&] { return first_look(config, config.results); };
  } else {
    run_options.shard = parse_shard(options.shard, [](const char* name) { return std::getenv(name); });
  }
  check_before_run(loaded, run_options);
  Progress progress(progress_options(options, records_folder(config, run_options.shard)));
  run_options.progress = &progress;
  RunSummary summary;
  try {
    summary = run_sweep(config, run_options);
    progress.clear();
    // Shards run beside one another; what they found together is told by `kvc report` or `kvc merge`.
    if (!run_options.shard) show_report(config.results);
  } catch (const std::exception& error) {
    progress.end(false, fmt::format("error: {}", error.what()));
    throw;
  }
  const std::string outcome =
      fmt::format("{} measured, {} found{}; {} in {}", count(summary.measured, "record"), summary.already_done,
                  plan_outcome(summary), run_options.shard ? "records" : "records and report",
                  records_folder(config, run_options.shard));
  progress.end(summary.failed == 0,
               summary.failed == 0 ? outcome : fmt::format("{}; {} failed", outcome, count(summary.failed, "record")));
  if (!options.quiet) fmt::print(stderr, "{}\n", outcome);
  if (summary.failed == 0) return 0;
  fmt::print(stderr,
             "error: {} failed\n  where: {}\n  mend:  see \"error\" in the records; the same command tries again what "
             "failed\n",
             count(summary.failed, "record"), records_folder(config, run_options.shard));
  return kSomeFailed;
}

// Whether a file is data and no sweep: JSON lines, a JSON list, or a JSON object without a key of sweeps.
bool holds_data(const std::string& path) {
  if (path.ends_with(".jsonl")) return true;
  std::ifstream file(path, std::ios::binary);
  std::string start(size_t{1} << 16U, '\0');
  file.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  const size_t first = start.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  if (first == std::string::npos || (start[first] != '{' && start[first] != '[')) return false;
  static const std::regex sweep_key(R"x("(sweep|model|method|target)"\s*:)x");
  const bool of_sweep = std::regex_search(start, sweep_key);
  return start[first] == '[' || (!of_sweep && start.find("sweep:") == std::string::npos);
}

// A file or folder of data: what it holds, what is not read, and with Error(kData) all that is wrong with it.
int validate_data(const std::string& path) {
  const FoundData found = find_data(path, nullptr);
  fmt::print("{} is valid data ({}): {}\n", path, found.dataset, found.counts());
  for (const std::string& note : found.notes) fmt::print("  note: {}\n", note);
  fmt::print("  kvc new sweep.yaml --model MODEL --data {}\n", path);
  return 0;
}

int validate(const RunArguments& options) {
  std::error_code error;
  if (std::filesystem::is_directory(options.config, error)) return validate_data(options.config);
  if (std::filesystem::is_regular_file(options.config, error) && holds_data(options.config))
    return validate_data(options.config);
  const LoadedSweep loaded = load_sweep_and_files(options.config);
  const SweepConfig& config = loaded.sweep;
  if (!loaded.complete()) {
    if (!options.config_only) check_inputs(loaded);  // throws, with what else is wrong
    throw_if_any(ErrorKind::kUsage, loaded.of_files, config.path);
  }
  sweep_rule(config);
  make_blocks(config, [](const std::string&) { return std::map<std::string, Json>(); });  // throws as kvc run would
  if (!options.config_only) check_inputs(loaded);  // throws where an input would stop the sweep
  fmt::print("{} is valid: sweep '{}', {}\n", options.config, config.name,
             count(static_cast<int64_t>(expand(config).size()), "cell"));
  return 0;
}

}  // namespace

Runner declare_run(CLI::App& app) {
  auto options = std::make_shared<RunArguments>();
  CLI::App* command = app.add_subcommand("run", "measure what is missing of a sweep, then write and print its report");
  command->add_option("config", options->config, "sweep file, YAML or JSON")->required();
  command->add_option("--results", options->results, "folder of the records; default: the one the file names");
  command->add_option(
      "--shard", options->shard,
      "measure one part: 3/16 is the third of 16; auto or auto/16: as the scheduler says. Records go to "
      "shards/3-of-16 of the results folder");
  command->add_flag(
      "--dry-run", options->dry_run,
      "show the cells and what is done, check data and models, and plan the rest: time, memory, bytes, shards; "
      "measures rates for some seconds, writes nothing");
  command->add_option("--within", options->within,
                      "with --dry-run: a wall time, e.g. 6h; says how many shards meet it");
  command->add_flag("--no-plan", options->no_plan, "measure no rates before; the time left is then a guess by records");
  command->add_option("--ask-together", options->ask_together,
                      "caches of one method asked in one batch: auto (as many as leave the answers' bits alone), or at "
                      "most so many; 1: each alone. In place of the sweep file's ask_together");
  command->add_flag("--quiet", options->quiet, "no progress on stderr");
  command->add_option("--log", options->log,
                      "append progress, notes and failures to this file, each line with its time: for a sweep under "
                      "nohup");
  command
      ->add_option(
          "--progress", options->progress,
          "text, or json: one JSON object a line, for dashboards; in the file of --log where it is given, else "
          "on stderr")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->add_flag("--skip-proof", options->skip_proof, "skip the self-proof; every record says so");
  return [options] { return run_run(*options); };
}

Runner declare_validate(CLI::App& app) {
  auto options = std::make_shared<RunArguments>();
  CLI::App* command = app.add_subcommand(
      "validate", "check a sweep file, its data and its models' headers, or data alone, without running it");
  command
      ->add_option("config", options->config,
                   "sweep file, YAML or JSON; or data: a file as kvc new --data takes it, or a folder of .txt and .md "
                   "files with questions.csv")
      ->required();
  command->add_flag("--config-only", options->config_only, "check the file alone; data and models may be elsewhere");
  return [options] { return validate(*options); };
}

}  // namespace kvc
