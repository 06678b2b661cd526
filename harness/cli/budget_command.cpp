// kvc budget: each head's part of a budget, found on documents.

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "harness/cli/commands.h"
#include "harness/cli/model_options.h"
#include "harness/core/error.h"
#include "harness/core/json_lines.h"
#include "harness/head_budgets/budget_search.h"

namespace kvc {
namespace {

struct Options {
  BudgetSearch search;
  std::string dataset, method = "am_highest_attention", queries = "repeat_prefill", report;
};

// Ascending and in (0, 1]; what is asked of a list on the command line.
void check_fractions(std::vector<double>& list, const std::string& option) {
  std::sort(list.begin(), list.end());
  list.erase(std::unique(list.begin(), list.end()), list.end());
  const bool fine = !list.empty() && list.front() > 0 && list.back() <= 1;
  if (!fine) {
    throw Error(ErrorKind::kUsage, "a kept fraction is above 0 and at most 1", option,
                fmt::format("write {} 0.01,0.05", option));
  }
}

int run(Options& options) {
  BudgetSearch& search = options.search;
  check_fractions(search.targets, "--targets");
  check_fractions(search.curves.baselines, "--baselines");
  std::vector<double>& fractions = search.curves.fractions;
  fractions.insert(fractions.end(), search.curves.baselines.begin(), search.curves.baselines.end());
  check_fractions(fractions, "--baselines");
  search.dataset = plugin_from_text<Dataset>("dataset", options.dataset, "--dataset");
  search.method = plugin_from_text<CompactionMethod>("method", options.method, "--method");
  if (search.method.plugin->needs_queries())
    search.queries = plugin_from_text<QuerySource>("queries", options.queries, "--queries");
  search.curves_file = search.out + ".curves.jsonl";
  const Json report = search_budget(search);
  if (!options.report.empty()) write_file_atomically(options.report, report.dump(1) + "\n");
  print_out(budget_report_text(report));
  if (!search.quiet) {
    fmt::print(stderr, "parts in {}; use them as budget: {{budget: proportions, file: {}}}\n", search.out, search.out);
  }
  return 0;
}

}  // namespace

Runner declare_budget(CLI::App& app) {
  auto options = std::make_shared<Options>();
  BudgetSearch& search = options->search;
  search.model.dtype = "float32";  // in bfloat16 rounding moves the answers as much as one head of many does
  CLI::App* command =
      app.add_subcommand("budget", "find each head's part of a budget on documents, for the rule 'proportions'");
  add_model_options(*command, search.model);
  command->add_option("--chat-template", search.model.chat_template,
                      "name of a built-in one; default: the model's own");
  command->add_option("--dataset", options->dataset, "quality, or '{dataset: quality, articles: [\"20002\"]}'")
      ->required();
  command->add_option("--documents", search.documents, "first documents to measure; 0: all but those checked")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--check", search.check, "documents after those, on which the result is compared with uniform")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--method", options->method, "method that the parts are for, or '{method: NAME, option: value}'")
      ->capture_default_str();
  command->add_option("--queries", options->queries, "source of its reference queries")->capture_default_str();
  command->add_option("--targets", search.targets, "kept fractions that the parts are for, e.g. 0.01,0.05")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--floor", search.floor_share, "least part of a head, in uniform parts")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--baselines", search.curves.baselines, "kept fractions at which heads are weighed by KL")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--questions", search.curves.questions, "first questions of a document to ask; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--answer-tokens", search.curves.answer_tokens, "longest answer of the full cache")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--seed", search.seed, "of everything random; default 0");
  command->add_option("--out", search.out, "JSON file for the parts; OUT.curves.jsonl keeps what was measured")
      ->required();
  command->add_option("--report", options->report, "JSON file for curves, weights and the check");
  command->add_flag("--quiet", search.quiet, "no progress on stderr");
  return [options] { return run(*options); };
}

}  // namespace kvc
