// kvc export: every question of a results folder as a row, for other programs.

#include <fmt/format.h>

#include <memory>
#include <string>

#include "harness/cli/commands.h"
#include "harness/cli/list.h"
#include "harness/cli/text_output.h"
#include "harness/report/question_export.h"

namespace kvc {
namespace {

struct ExportArguments {
  std::string folder, format = "csv", output;
  bool force = false;
};

int export_questions(const ExportArguments& options) {
  if (options.format == "parquet") {
    throw Error(ErrorKind::kUsage, "kvc writes no Parquet: that would need Arrow, which Debian does not have",
                "--format parquet", "export csv; duckdb and pandas turn it into Parquet");
  }
  if (options.format != "csv" && options.format != "jsonl")
    throw Error(ErrorKind::kUsage, fmt::format("unknown format '{}'", options.format), "--format", "csv or jsonl");
  check_text_output(options.output, options.folder);
  check_new_output("--output", options.output, options.force, {options.folder});
  const LoadedReport loaded = load_report(options.folder, option_defaults());
  write_text_output(options.output, options.format == "csv" ? questions_csv(loaded) : questions_jsonl(loaded));
  return 0;
}

}  // namespace

Runner declare_export(CLI::App& app) {
  auto options = std::make_shared<ExportArguments>();
  CLI::App* command = app.add_subcommand("export", "one row a question, with prompt and answer, for other programs");
  command->add_option("folder", options->folder, "results folder")->required();
  command->add_option("--format", options->format, "csv or jsonl")->capture_default_str();
  command->add_option("--output", options->output, "file to write; default: standard output");
  add_replace(*command, options->force);
  return [options] { return export_questions(*options); };
}

}  // namespace kvc
