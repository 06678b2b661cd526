// kvc explain: why a compact cache lost answers that the full cache has.

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>

#include "harness/cli/commands.h"
#include "harness/cli/list.h"
#include "harness/cli/model_options.h"
#include "harness/cli/show_report.h"
#include "harness/core/count.h"
#include "harness/explain/explain_run.h"
#include "harness/report/cause_table.h"
#include "harness/report/report.h"

namespace kvc {
namespace {

struct ExplainArguments {
  ExplainRequest request;
  bool json = false;
};

Json result_json(const ExplainResult& result) {
  Json explanations = Json::array();
  for (const Explanation& one : result.explanations) explanations.push_back(one.to_json());
  return {{"right_with_full_cache", result.n_compared},
          {"flips", result.n_flips},
          {"explained_now", result.made},
          {"explained_before", result.found},
          {"left_out", result.left_out},
          {"failures", result.failures},
          {"notes", result.notes},
          {"explanations", std::move(explanations)}};
}

// What the counts alone say: nothing lost, or how much was left out.
std::string counts_text(const ExplainResult& result) {
  if (result.n_flips == 0) {
    return fmt::format("No flips: of {} that the full cache has right, the compact caches chosen lose none.\n",
                       count(result.n_compared, "answer"));
  }
  std::string text =
      fmt::format("{} of {} that the full cache has right are lost; {} explained ({} of them before).\n",
                  result.n_flips, count(result.n_compared, "answer"), result.made + result.found, result.found);
  if (result.left_out > 0)
    text += fmt::format("{} left out: --limit {} explains all.\n", result.left_out, result.n_flips);
  return text;
}

std::string result_text(const ExplainResult& result, const Tabulated& tabulated) {
  std::string text;
  for (const Explanation& one : result.explanations)
    text += explanation_text(one, cell_name(tabulated, one.cell_id)) + "\n";
  for (const Table& table : tabulated.tables) {
    const TextTable causes = cause_table(table, result.explanations);
    if (causes.rows.empty()) continue;
    text += fmt::format("{}, {}: why answers were lost\n{}\n", table.dataset_label, table.task_label,
                        terminal_table(causes, 2, terminal_width()));
  }
  return text + counts_text(result);
}

int run_explain(const ExplainArguments& options) {
  const ExplainResult result = explain_results(options.request);
  if (options.json) {
    print_out(result_json(result).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  } else {
    print_out(result_text(result, load_report(options.request.folder, option_defaults(), false).tabulated));
  }
  if (!options.request.quiet) {
    for (const std::string& note : result.notes) fmt::print(stderr, "note: {}\n", note);
    if (result.made > 0)
      fmt::print(stderr, "explanations are in {}; kvc report {} shows them too\n",
                 explanations_file(options.request.folder), options.request.folder);
  }
  return result.failures.empty() ? 0 : kSomeFailed;
}

}  // namespace

Runner declare_explain(CLI::App& app) {
  auto options = std::make_shared<ExplainArguments>();
  ExplainRequest& request = options->request;
  CLI::App* command = app.add_subcommand(
      "explain", "find out why compact caches lost answers that the full cache has: which text, or which fit");
  command->add_option("folder", request.folder, "results folder")->required();
  command->add_option("--question", request.filter.question, "id of one question; default: all that were lost");
  command->add_option("--document", request.filter.document, "id of one document");
  command->add_option("--method", request.filter.method, "name of one method; no_context only when named");
  command->add_option("--target", request.filter.target, "one target as in the sweep file: 0.1, '512 entries'");
  command->add_option("--limit", request.limit, "most answers to explain, in turn from each cell; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--noise", request.settings.noise,
                   "relative noise on the full cache that a firm answer must withstand")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--draws", request.settings.draws, "draws of that noise")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--max-tests", request.settings.max_tests, "times a question may be asked to find its text")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->add_option("--model", request.model_path,
                      "where the weights are; default: as the folder's config.json says");
  command->add_option("--device", request.device, "cpu, cuda, cuda:1 (the second GPU) or auto");
  command->add_flag("--again", request.again, "explain again what was explained before");
  command->add_flag("--json", options->json, "one JSON object");
  command->add_flag("--quiet", request.quiet, "no progress on stderr");
  return [options] { return run_explain(*options); };
}

}  // namespace kvc
