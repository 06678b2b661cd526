// kvc budget: each head's part of a budget, found on documents.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "harness/cli/commands.h"
#include "harness/cli/model_options.h"
#include "harness/core/error.h"
#include "harness/core/json_lines.h"
#include "harness/core/output_file.h"
#include "harness/head_budgets/budget_search.h"

namespace kvc {
namespace {

struct BudgetArguments {
  BudgetSearch search;
  bool force = false;
  std::string dataset, method, queries, report, by = "answers";
};

// Ascending and in (0, 1]; what is asked of a list on the command line.
void check_fractions(std::vector<double>& list, const std::string& option) {
  std::sort(list.begin(), list.end());
  list.erase(std::unique(list.begin(), list.end()), list.end());
  const bool fine = !list.empty() && list.front() > 0 && list.back() <= 1;
  if (!fine) {
    throw Error(ErrorKind::kUsage, "a kept fraction must be above 0 and at most 1", option,
                fmt::format("write {} 0.01,0.05", option));
  }
}

// The parts are a plain mapping, as the rule 'proportions' reads them; that kvc wrote them is told by the curves
// beside.
void check_budget_outputs(const BudgetArguments& options) {
  const BudgetSearch& search = options.search;
  std::vector<std::string> inputs = {search.model.path};
  for (const Json& plugin : {search.dataset.value, search.method.value}) {
    for (std::string& file : files_named_in(plugin)) inputs.push_back(std::move(file));
  }
  const auto has_curves = [&](const std::string&) { return has_format("kvcompact.head_curves")(search.curves_file); };
  check_outputs({{"--out", search.out, has_curves}, {"--report", options.report, has_format("kvcompact.head_budget")}},
                inputs, options.force);
  // A curves file is added to, never replaced; CurvesFile refuses one that it did not write.
  if (!std::filesystem::exists(search.curves_file)) check_outputs({{"--out", search.curves_file, {}}}, inputs, false);
}

// What plays no part is refused rather than ignored.
void refuse_idle_options(const CLI::App& command, const std::string& by) {
  struct Owned {
    std::vector<std::string> by, options;
  };
  for (const Owned& owned : {Owned{{"answers"}, {"--targets", "--floor", "--baselines", "--check"}},
                             Owned{{"answers", "utility"}, {"--method", "--queries", "--questions", "--answer-tokens"}},
                             Owned{{"gates"}, {"--steps", "--sink", "--recent", "--penalty"}}}) {
    if (std::find(owned.by.begin(), owned.by.end(), by) != owned.by.end()) continue;
    for (const std::string& option : owned.options) {
      if (command.count(option) == 0) continue;
      throw Error(ErrorKind::kUsage,
                  fmt::format("{} belongs to --by {}; this is --by {}", option, fmt::join(owned.by, " or "), by),
                  option, "leave it out");
    }
  }
}

int run_budget(BudgetArguments& options) {
  BudgetSearch& search = options.search;
  if (!(search.gates.penalty >= 0)) {  // which a range check lets pass: not a number
    throw Error(ErrorKind::kUsage, fmt::format("must be a number from 0; got {}", search.gates.penalty), "--penalty",
                "write --penalty 0.05");
  }
  const bool by_utility = options.by == "utility", by_gates = options.by == "gates";
  search.by = by_gates     ? BudgetSearch::By::kGates
              : by_utility ? BudgetSearch::By::kUtility
                           : BudgetSearch::By::kAnswers;
  if (options.method.empty()) options.method = by_utility ? "expected_attention" : "am_highest_attention";
  if (by_utility || by_gates) search.check = 0;
  check_fractions(search.targets, "--targets");
  check_fractions(search.curves.baselines, "--baselines");
  std::vector<double>& fractions = search.curves.fractions;
  fractions.insert(fractions.end(), search.curves.baselines.begin(), search.curves.baselines.end());
  check_fractions(fractions, "--baselines");
  search.dataset = plugin_from_text<Dataset>("dataset", options.dataset, "--dataset");
  search.method = plugin_from_text<CompactionMethod>("method", options.method, "--method");
  if (search.method.plugin->needs_queries()) {
    const std::string queries = options.queries.empty() ? search.method.plugin->published_queries() : options.queries;
    search.queries = plugin_from_text<QuerySource>("queries", queries, "--queries");
  }
  search.curves_file = search.out + ".curves.jsonl";
  check_budget_outputs(options);
  const Json report = search_budget(search);
  if (!options.report.empty()) write_file_atomically(options.report, report.dump(1) + "\n");
  print_out(budget_report_text(report));
  if (!search.quiet) {
    fmt::print(stderr, "shares in {}; use them as budget: {{budget: {}, file: {}}}\n", search.out,
               by_gates     ? "duo_attention"
               : by_utility ? "lu_kv"
                            : "proportions",
               search.out);
  }
  return 0;
}

}  // namespace

Runner declare_budget(CLI::App& app) {
  auto options = std::make_shared<BudgetArguments>();
  BudgetSearch& search = options->search;
  search.model.dtype = "float32";  // in bfloat16 rounding moves the answers as much as one head of many does
  CLI::App* command = app.add_subcommand(
      "budget",
      "find how heads should share a budget, measured on documents, for the rules 'proportions', 'lu_kv' and "
      "'duo_attention'");
  command
      ->add_option("--by", options->by,
                   "answers: how far they move without a head's entries (rule proportions); utility: what they look at "
                   "(LU-KV's profile, rule lu_kv); gates: whether a head needs more than first and recent entries "
                   "(DuoAttention's training, rule duo_attention). Only 'answers' has --targets, --floor, --baselines, "
                   "--check")
      ->check(CLI::IsMember({"answers", "utility", "gates"}))
      ->capture_default_str();
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
  command->add_option(
      "--method", options->method,
      "method to find the shares for, or '{method: NAME, option: value}'; default: am_highest_attention, "
      "by utility expected_attention");
  command->add_option("--queries", options->queries,
                      "source of its reference queries; default: the one its paper uses");
  command->add_option("--targets", search.targets, "kept fractions to find the shares for, e.g. 0.01,0.05")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--floor", search.floor_share, "smallest share of a head, relative to a uniform share")
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
  command->add_option("--steps", search.gates.steps, "by gates: steps of training")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->add_option("--sink", search.gates.n_sink, "by gates: first entries that a streaming head keeps")
      ->check(CLI::Range(0, 1000000000))
      ->capture_default_str();
  command->add_option("--recent", search.gates.n_recent, "by gates: most recent entries that it keeps")
      ->check(CLI::Range(1, 1000000000))
      ->capture_default_str();
  command->add_option("--penalty", search.gates.penalty, "by gates: what an open gate adds to the loss")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  add_seed(*command, search.seed);
  command
      ->add_option(
          "--out", search.out,
          "JSON file for the shares, by utility a .npy, by gates a .tsv; OUT.curves.jsonl keeps the measurements")
      ->required();
  command->add_option("--report", options->report, "JSON file for curves, weights and the check");
  add_force(*command, options->force);
  command->add_flag("--quiet", search.quiet, "no progress on stderr");
  return [options, command] {
    refuse_idle_options(*command, options->by);
    return run_budget(*options);
  };
}

}  // namespace kvc
