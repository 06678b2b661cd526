// kvc import: results of another program as records, so that reports show them beside ours.

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "harness/cli/commands.h"
#include "harness/cli/import_am.h"
#include "harness/cli/show_report.h"
#include "harness/core/count.h"
#include "harness/core/error.h"
#include "harness/core/text_file.h"
#include "harness/sweep/results_folder.h"

namespace kvc {
namespace {

struct ImportArguments {
  std::string layout;
  std::string source, target;
  ImportSettings settings;
};

// None where the folder is not there yet.
std::vector<Record> records_in(const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) return {};
  std::vector<std::string> warnings;
  return load_records(folder, warnings);
}

// The cells that the folder has measured itself. Those of an earlier import do not count: "original" would then be
// imported a second time, under another name.
std::vector<Json> own_cells(const std::vector<Record>& records) {
  std::vector<Json> cells;
  for (const Record& record : records) {
    if (record.provenance.contains("imported_from")) continue;
    if (cells.empty() || cells.back() != record.cell) cells.push_back(record.cell);
  }
  return cells;
}

// Before anything is written.
void check_target(const ImportArguments& options) {
  std::error_code error;
  if (std::filesystem::equivalent(options.source, options.target, error)) {
    throw Error(ErrorKind::kUsage, "--into names the folder that is imported", options.target,
                "name another folder, e.g. results/NAME");
  }
  check_report_files(options.target);
}

int run_import(ImportArguments options) {
  if (options.target.empty()) options.target = "results/" + last_name(options.source);
  if (options.layout != "am") {
    throw Error(ErrorKind::kUsage, fmt::format("no layout '{}'", options.layout), "kvc import",
                suggest_name(options.layout, {"am"}));
  }
  check_target(options);
  Imported imported = import_am(options.source, own_cells(records_in(options.target)), options.settings);
  for (const std::string& warning : imported.warnings) fmt::print(stderr, "warning: {}\n", warning);
  if (imported.records.empty()) {
    throw Error(ErrorKind::kData, "no answer could be imported", options.source, "see the warnings above");
  }
  const auto n_all = std::ssize(imported.records);
  keep_new(imported.records, records_in(options.target));  // refuses before a folder is made
  int64_t n_new = 0;
  {
    const ResultsFolder folder(options.target);
    // Read again under the folder's lock: another import may have written meanwhile.
    for (const Record& record : keep_new(std::move(imported.records), records_in(options.target))) {
      folder.append(record);
      ++n_new;
    }
  }
  show_report(options.target);
  fmt::print(stderr, "{} with {}: {} imported into {}, {} were there\n", count(imported.files, "file"),
             count(imported.answers, "answer"), count(n_new, "record"), options.target, n_all - n_new);
  if (imported.judged_alike + imported.judged_otherwise > 0) {
    fmt::print(stderr, "accuracy_paper and the files' own is_correct agree on {} of {} answers\n",
               imported.judged_alike, imported.judged_alike + imported.judged_otherwise);
  }
  return 0;
}

}  // namespace

Runner declare_import(CLI::App& app) {
  auto options = std::make_shared<ImportArguments>();
  CLI::App* command =
      app.add_subcommand("import", "read results of another program into records, then write and print the report");
  command->add_option("layout", options->layout, "am: the reference implementation of Attention Matching")->required();
  command->add_option("folder", options->source, "folder with its result files (*.json)")->required();
  command->add_option("--into", options->target, "results folder to write to; default: results/ and the folder's name");
  command->add_option("--data", options->settings.data,
                      "am: QuALITY's or LongHealth's file with the right answers, for stored answers without them");
  command
      ->add_option("--max-new-tokens", options->settings.max_new_tokens,
                   "am: longest answer of that run; one of as many tokens was cut off")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  return [options] { return run_import(*options); };
}

}  // namespace kvc
