// kvc report and score: what the records of a results folder say.

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "harness/cli/commands.h"
#include "harness/cli/list.h"
#include "harness/cli/model_options.h"
#include "harness/cli/show_report.h"
#include "harness/cli/text_output.h"
#include "harness/core/config_text.h"
#include "harness/core/output_file.h"
#include "harness/report/flips.h"
#include "harness/report/report.h"
#include "harness/sweep/coverage.h"

namespace kvc {
namespace {

struct ReportArguments {
  std::string folder, output;
  bool force = false;
  bool no_html = false;
  bool flips = false, json = false;
  FlipFilter filter;
};

// A line of scores as this command writes them.
bool holds_scores(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  std::getline(file, text);
  const Json line = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return line.is_object() && line.contains("question_id") && line.contains("values");
}

// A report of flips as this command writes it.
bool holds_flips(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  std::getline(file, text);
  const Json line = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return line.is_object() ? line.contains("full_reply") : text.find(" answers changed between") != std::string::npos;
}

int score_flips(const ReportArguments& options) {
  if (!options.output.empty()) check_text_output(options.output, options.folder);
  check_outputs({{"--output", options.output, holds_flips}}, {}, options.force);
  const LoadedReport loaded = load_report(options.folder, option_defaults());
  const Flips flips = find_flips(loaded, options.filter);
  const size_t width = options.output.empty() ? terminal_width() : kTerminalWidth;
  write_text_output(options.output, options.json ? flips_json(flips) : flips_text(flips, options.folder, width));
  const int64_t n_failed = loaded.tabulated.n_failed;
  if (n_failed > 0) fmt::print(stderr, "note: {} failed records are not compared\n", n_failed);
  return 0;
}

int score(const ReportArguments& options) {
  if (options.flips) return score_flips(options);
  if (!options.output.empty()) check_text_output(options.output, options.folder);
  check_outputs({{"--output", options.output, holds_scores}}, {}, options.force);
  std::vector<Failure> failures;
  const std::string lines = score_answers(options.folder, failures, option_defaults());
  write_text_output(options.output, lines);
  for (const Failure& failure : failures)
    fmt::print(stderr, "not scored: {}, document '{}': {}\n", failure.label, failure.document_id, failure.error);
  return failures.empty() ? 0 : kSomeFailed;
}

}  // namespace

Runner declare_report(CLI::App& app) {
  auto options = std::make_shared<ReportArguments>();
  CLI::App* command = app.add_subcommand("report", "write and print the report of a results folder");
  command->add_option("folder", options->folder, "results folder")->required();
  command->add_flag("--no-html", options->no_html, "leave out report.html, the largest file where answers are many");
  return [options] {
    // Shards of different sweep files make no report; a folder without records is named as such.
    const Coverage coverage = coverage_of(options->folder);
    show_report(options->folder, !options->no_html);
    fmt::print(stderr, "{}", coverage_text(coverage));
    return 0;
  };
}

Runner declare_score(CLI::App& app) {
  auto options = std::make_shared<ReportArguments>();
  CLI::App* command =
      app.add_subcommand("score",
                         "score the stored answers of a results folder again: one JSON line per question; --flips: the "
                         "answers that a compact cache changed");
  command->add_option("folder", options->folder, "results folder")->required();
  command->add_option("--output", options->output, "file to write; default: standard output");
  CLI::Option* flips = command->add_flag(
      "--flips", options->flips,
      "every question that a compact cache answers right and the full cache wrong, or the other way round");
  command
      ->add_option("--method", options->filter.methods,
                   "with --flips: only this method, by its name or as the report labels it; may be given again")
      ->needs(flips)
      ->allow_extra_args(false);
  command
      ->add_option("--target", options->filter.targets, "with --flips: only this target, e.g. 0.1; may be given again")
      ->needs(flips)
      ->allow_extra_args(false);
  command->add_flag("--json", options->json, "with --flips: one JSON line for each, texts uncut")->needs(flips);
  add_force(*command, options->force);
  return [options] { return score(*options); };
}

}  // namespace kvc
