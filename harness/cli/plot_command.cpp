// kvc plot: one picture of a results folder, for a paper.

#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "harness/cli/commands.h"
#include "harness/cli/list.h"
#include "harness/cli/text_output.h"
#include "harness/report/picture_file.h"
#include "harness/report/plot.h"
#include "harness/report/report.h"

namespace kvc {
namespace {

struct PlotArguments {
  std::string folder, out, x = "kept", model;
  PlotChoice choice;
  bool force = false;
};

int plot(const PlotArguments& options) {
  PlotChoice choice = options.choice;
  const std::vector<std::string> axes = {"kept", "ratio", "bytes", "seconds"};
  for (size_t i = 0; i < axes.size(); ++i) {
    if (axes[i] == options.x) choice.x = static_cast<PlotAxis>(i);
  }
  check_new_output("--out", options.out, options.force, {options.folder});
  const LoadedReport loaded = load_report(options.folder, option_defaults(), false);
  const auto plots = plots_of(loaded.tabulated, choice);
  for (const auto& [model, plot] : plots) {
    if (!options.model.empty() && options.model != model) continue;
    if (options.model.empty() && plots.size() > 1) {
      std::string models;
      for (const auto& [name, unused] : plots) models += (models.empty() ? "" : ", ") + name;
      throw Error(ErrorKind::kUsage, "the folder holds several models: " + models, options.folder,
                  "choose one with --model");
    }
    write_picture(options.out, render_svg(plot));
    if (!options.out.empty()) fmt::print("{}\n", options.out);
    return 0;
  }
  throw Error(ErrorKind::kUsage, "nothing to draw: no table has this metric, data set, task, model and methods",
              options.folder, "see the names in report.md, or leave out an option");
}

}  // namespace

Runner declare_plot(CLI::App& app) {
  auto options = std::make_shared<PlotArguments>();
  CLI::App* command = app.add_subcommand("plot", "a picture of a results folder for a paper: SVG, PDF or PNG");
  command->add_option("folder", options->folder, "results folder")->required();
  command->add_option("--metric", options->choice.metric, "default: the primary metric of each task");
  command->add_option("--dataset", options->choice.dataset, "name or label; default: all, a panel each");
  command->add_option("--task", options->choice.task, "name or label; default: all");
  command->add_option("--model", options->model, "needed where the folder holds several");
  command->add_option("--x", options->x, "kept, ratio, bytes or seconds")
      ->check(CLI::IsMember({"kept", "ratio", "bytes", "seconds"}))
      ->capture_default_str();
  command->add_option("--methods", options->choice.methods, "names or labels to draw; default: all, the best in colour")
      ->delimiter(',');
  command->add_option("--out", options->out, "file to write: .svg, .pdf or .png; default: SVG on standard output");
  add_replace(*command, options->force);
  return [options] { return plot(*options); };
}

}  // namespace kvc
