// kvc table: numbers of one or more results folders for a paper, a page or a spreadsheet.

#include <memory>
#include <string>
#include <vector>

#include "harness/cli/commands.h"
#include "harness/cli/list.h"
#include "harness/cli/text_output.h"
#include "harness/report/value_table.h"

namespace kvc {
namespace {

struct TableArguments {
  std::vector<std::string> folders;
  std::string output;
  bool no_intervals = false, force = false;
  ValueTableOptions table;
};

int table(const TableArguments& options) {
  ValueTableOptions wanted = options.table;
  wanted.intervals = !options.no_intervals;
  check_new_output("--output", options.output, options.force, options.folders);
  std::vector<LoadedReport> folders;
  for (const std::string& folder : options.folders) {
    check_text_output(options.output, folder);
    folders.push_back(load_report(folder, option_defaults(), false));
  }
  write_text_output(options.output, value_table(folders, wanted));
  return 0;
}

}  // namespace

Runner declare_table(CLI::App& app) {
  auto options = std::make_shared<TableArguments>();
  ValueTableOptions& table_options = options->table;
  CLI::App* command = app.add_subcommand("table", "one metric as a table: Markdown, CSV, TSV, LaTeX or JSON");
  command->add_option("folders", options->folders, "results folders")->required();
  command->add_option("--rows", table_options.rows, "method, target, model, dataset, task, metric or folder")
      ->capture_default_str();
  command->add_option("--columns", table_options.columns, "the same")->capture_default_str();
  command->add_option("--metric", table_options.metric, "default: the primary metric of each task");
  command->add_option("--dataset", table_options.dataset, "name or label; default: all");
  command->add_option("--task", table_options.task, "name or label; default: all");
  command->add_option("--format", table_options.format, "md, csv, tsv, latex (booktabs) or json")
      ->check(CLI::IsMember({"md", "csv", "tsv", "latex", "json"}))
      ->capture_default_str();
  command->add_flag("--transpose", table_options.transpose, "rows and columns change places");
  command->add_flag("--best", table_options.best, "bold: the best of a column and what is not decidedly worse");
  command->add_flag("--sort", table_options.sort, "best rows first");
  command->add_flag("--no-intervals", options->no_intervals, "means alone");
  command->add_option("--width", table_options.width, "Markdown and LaTeX: intervals are left out of wider tables")
      ->check(CLI::Range(20, 10000))
      ->capture_default_str();
  command->add_option("--output", options->output, "file to write; default: standard output");
  add_replace(*command, options->force);
  return [options] { return table(*options); };
}

}  // namespace kvc
