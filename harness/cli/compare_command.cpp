// kvc compare: two runs of the same sweep, as a gate against regressions.

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "harness/cli/commands.h"
#include "harness/cli/list.h"
#include "harness/cli/show_report.h"
#include "harness/report/report.h"
#include "harness/report/run_comparison.h"

namespace kvc {
namespace {

constexpr int kWorse = 1;

struct CompareArguments {
  std::string first, second, tolerance = "0%";
};

// "1%" or "0.01".
double tolerance_of(const std::string& text) {
  char* end = nullptr;
  double value = std::strtod(text.c_str(), &end);
  const std::string rest = end;
  if (rest == "%") value /= 100;
  if (end == text.c_str() || (!rest.empty() && rest != "%") || !(value >= 0 && value <= 1)) {
    throw Error(ErrorKind::kUsage, fmt::format("must be a share from 0% to 100%; got '{}'", text), "--fail-if-worse",
                "write 1% or 0.01");
  }
  return value;
}

int compare(const CompareArguments& options) {
  const double tolerance = tolerance_of(options.tolerance);
  const LoadedReport first = load_report(options.first, option_defaults(), false);
  const LoadedReport second = load_report(options.second, option_defaults(), false);
  const RunComparison comparison = compare_runs(first.tabulated, second.tabulated);
  if (comparison.cells.empty()) {
    throw Error(ErrorKind::kData, "the folders share no cell with the same questions",
                options.first + ", " + options.second, "compare two runs of the same sweep file");
  }
  fmt::print("{}", comparison_text(comparison, options.first, options.second, terminal_width()));
  const auto worse = worse_cells(comparison, tolerance);
  std::fflush(stdout);
  if (worse.empty()) return 0;
  fmt::print(stderr, "error: {} cell{} decidedly worse by more than {}\n", worse.size(),
             worse.size() == 1 ? " is" : "s are", options.tolerance);
  return kWorse;
}

}  // namespace

Runner declare_compare(CLI::App& app) {
  auto options = std::make_shared<CompareArguments>();
  CLI::App* command = app.add_subcommand(
      "compare", "two runs on the same questions: what got better, worse, and which settings differ");
  command->add_option("first", options->first, "results folder, as it was")->required();
  command->add_option("second", options->second, "results folder, as it is now")->required();
  command
      ->add_option(
          "--fail-if-worse", options->tolerance,
          "end with 1 where something is decidedly worse by more than this: share points, or a part of the old "
          "value for other metrics")
      ->capture_default_str();
  return [options] { return compare(*options); };
}

}  // namespace kvc
