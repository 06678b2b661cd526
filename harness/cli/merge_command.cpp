// kvc merge: the shards of a sweep brought together.

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "harness/cli/commands.h"
#include "harness/cli/show_report.h"
#include "harness/core/count.h"
#include "harness/sweep/merge.h"

namespace kvc {
namespace {

constexpr int kSomethingMissing = 1;

struct MergeArguments {
  std::vector<std::string> sources;
  std::string target;
  MergeOptions merge;
};

int run_merge(const MergeArguments& options) {
  const MergeSummary merged = merge_results(options.sources, options.target, options.merge);
  for (const std::string& warning : merged.warnings) fmt::print(stderr, "warning: {}\n", warning);
  if (merged.records > 0) show_report(options.target);
  fmt::print(stderr, "{} merged: {} in {}{}\n", count(merged.folders, "folder"), count(merged.records, "record"),
             options.target,
             merged.duplicates > 0 ? fmt::format(" ({} that were there twice say the same)", merged.duplicates) : "");
  fmt::print(stderr, "{}", coverage_text(merged.coverage));
  return merged.coverage.complete() ? 0 : kSomethingMissing;
}

}  // namespace

Runner declare_merge(CLI::App& app) {
  auto options = std::make_shared<MergeArguments>();
  CLI::App* command = app.add_subcommand(
      "merge", "bring the shards of a sweep together, list what is missing, then write and print the report");
  command->add_option("folders", options->sources, "folders of shards, or results folders with shards in them")
      ->required();
  command->add_option("--into", options->target, "results folder to write to, e.g. results/NAME")->required();
  command->add_flag("--mixed-programs", options->merge.mixed_programs,
                    "take records of several states of the program; the report says so");
  return [options] { return run_merge(*options); };
}

}  // namespace kvc
