// kvc recommend: the smallest cache of each method whose loss is within a tolerance, measured until it is decided.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>

#include "harness/api/budget_rule.h"
#include "harness/api/compaction_method.h"
#include "harness/api/dataset.h"
#include "harness/api/plugin_entry.h"
#include "harness/api/query_source.h"
#include "harness/cli/commands.h"
#include "harness/cli/list.h"
#include "harness/cli/model_options.h"
#include "harness/cli/show_report.h"
#include "harness/cli/starter.h"
#include "harness/cli/sweep_rule.h"
#include "harness/core/count.h"
#include "harness/core/json_lines.h"
#include "harness/core/output_file.h"
#include "harness/model/families/inspect.h"
#include "harness/report/recommendation.h"
#include "harness/report/report.h"
#include "harness/sweep/coverage.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_blocks.h"
#include "harness/sweep/sweep_config.h"
#include "harness/sweep/sweep_plan.h"
#include "harness/text/tokenizer/load_tokenizer.h"

namespace kvc {
namespace {

constexpr const char* kFormat = "kvcompact.recommendation";

struct RecommendArguments {
  std::string model, data, metric = "accuracy", task, tolerance, confidence = "95%", results, within, dtype = "auto";
  std::string methods = "am_highest_attention, kvzip, snapkv", targets = "0.7, 0.5, 0.3, 0.2, 0.1, 0.05";
  double kl_bound = 2;
  std::uint64_t seed = 0;
  std::int64_t proof_tokens = 256;
  bool anyway = false, every_method = false, quiet = false, skip_proof = false;
};

double share_option(const std::string& text, const std::string& option, double most, const std::string& example) {
  const auto value = parse_share(text);
  if (!value || *value <= 0 || *value >= most) {
    throw Error(ErrorKind::kUsage, fmt::format("must be above 0 and below {:g}; got '{}'", most, text), option,
                fmt::format("write {} {}", option, example));
  }
  return *value;
}

LossSettings loss_settings(const RecommendArguments& options) {
  const auto& known = loss_metrics();
  if (std::find(known.begin(), known.end(), options.metric) == known.end()) {
    throw Error(ErrorKind::kUsage, fmt::format("unknown loss '{}'", options.metric), "--metric",
                suggest_name(options.metric, known));
  }
  LossSettings settings;
  settings.metric = options.metric;
  settings.kl_bound = options.kl_bound;
  const bool kl = options.metric == "kl";
  if (options.tolerance.empty()) {
    settings.tolerance = kl ? 0.1 : 0.05;
  } else {
    settings.tolerance = share_option(options.tolerance, "--tolerance", settings.unit(), kl ? "0.1 (nats)" : "1%");
    if (kl && options.tolerance.find('%') != std::string::npos)
      throw Error(ErrorKind::kUsage, "the tolerance of kl is in nats per token; got " + options.tolerance,
                  "--tolerance", "write --tolerance 0.1");
  }
  settings.confidence = share_option(options.confidence, "--confidence", 1, "95%");
  if (settings.confidence < 0.5)
    throw Error(ErrorKind::kUsage, "must be at least 50 %; got " + options.confidence, "--confidence",
                "write --confidence 95%");
  settings.give_up = !options.anyway;
  settings.halving = !options.every_method;
  return settings;
}

// The entry of a sweep file that reads the data, and its name for messages.
Json dataset_entry(const RecommendArguments& options, const Tokenizer* tokenizer) {
  const size_t first = options.data.find_first_not_of(" \n");
  if (first != std::string::npos && options.data[first] == '{') {
    plugin_from_text<Dataset>("dataset", options.data, "--data");
    return ConfigText::from_string(options.data, "--data").value();
  }
  const FoundData found = find_data(options.data, tokenizer);
  Json entry = {{"dataset", found.dataset}};
  entry.update(found.options);
  return entry;
}

// Tasks whose answers tell the loss, in the order of usefulness.
std::vector<std::string> candidate_tasks(const RecommendArguments& options) {
  if (!options.task.empty()) {
    if (!has_loss(options.metric, options.task)) {
      throw Error(ErrorKind::kUsage, fmt::format("task '{}' has no metric for {}", options.task, options.metric),
                  "--task", "accuracy: exact_match, likelihood or multiple_choice; agreement and kl: fidelity");
    }
    return {options.task};
  }
  if (options.metric == "accuracy") return {"exact_match", "likelihood", "multiple_choice"};
  return {"fidelity"};
}

// Items of a list on the command line, each as JSON.
Json list_option(const std::string& text, const std::string& option) {
  const Json list = ConfigText::from_string("[" + text + "]", option).value();
  if (!list.is_array() || list.empty())
    throw Error(ErrorKind::kUsage, "the list is empty", option, "name at least one");
  return list;
}

std::string results_name(const RecommendArguments& options) {
  std::string name = std::filesystem::path(options.data).stem().string();
  for (char& c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 128 || (std::isalnum(byte) == 0 && c != '_' && c != '-')) c = '_';
  }
  name.resize(std::min<size_t>(name.size(), 40));
  return "recommend_" + (name.empty() ? "data" : name);
}

// The sweep file that measures the same: `kvc run` of it into the same folder finds everything measured.
std::string sweep_text(const RecommendArguments& options, const LossSettings& settings, const Json& dataset,
                       const std::string& task, const std::string& results) {
  std::string methods = "  - full_cache\n";
  for (const Json& method : list_option(options.methods, "--methods")) methods += "  - " + method.dump() + "\n";
  return fmt::format(
      "# The sweep behind a recommendation: documents in random order, each cell until it is decided.\n"
      "#   kvc run THIS_FILE\n"
      "sweep: {}\nresults: {}\nseed: {}\nproof_tokens: {}\nmodel:\n  - {}\ndataset: {}\ntask: {}\ntarget: {}\nmethod:\n"
      "{}stop_when: {}\n",
      Json(std::filesystem::path(results).filename().string()).dump(), Json(results).dump(), options.seed,
      options.proof_tokens, Json{{"path", options.model}, {"dtype", options.dtype}}.dump(), dataset.dump(), task,
      list_option(options.targets, "--targets").dump(), methods,
      Json{{"rule", "certified"},
           {"tolerance", {{settings.metric, settings.tolerance}}},
           {"confidence", settings.confidence},
           {"kl_bound", settings.kl_bound},
           {"give_up", settings.give_up},
           {"halving", settings.halving}}
          .dump());
}

// What the sweep would ask of its data; the model is not loaded.
class Subject {
 public:
  Subject(const SweepConfig& config, const Tokenizer& tokenizer, const LossSettings& settings)
      : settings_(settings),
        blocks_(make_blocks(config, [](const std::string&) { return std::map<std::string, Json>(); })) {
    load_documents(blocks_.front(), tokenizer);
  }
  bool asks_anything() const {
    const std::string key = task_key(blocks_.front().cells.front().cell.task);
    const Json& tasks = blocks_.front().tasks;
    return std::any_of(tasks.begin(), tasks.end(), [&](const Json& counts) { return counts.at(key) > 0; });
  }
  Certification certification() const {
    const Block& block = blocks_.front();
    return {settings_, RuleKind::kCertify, ruled_block(block, block.tasks), block.cells.front().cell.task};
  }

 private:
  LossSettings settings_;
  std::vector<Block> blocks_;
};

// A recommendation is of one model, one data set and methods that take a target.
void check_sweep_shape(const SweepConfig& config) {
  for (const SweepMethod& method : config.methods) {
    const std::string name = method.method.at("name");
    if (name == "full_cache") continue;
    const bool targeted =
        std::all_of(method.targets.begin(), method.targets.end(), [](const auto& t) { return t.has_value(); });
    if (!targeted) {
      throw Error(ErrorKind::kUsage, fmt::format("method '{}' takes no target, so there is no size to recommend", name),
                  "--methods", "leave it out");
    }
  }
  if (config.datasets.size() != 1 || config.seeds.size() != 1)
    throw Error(ErrorKind::kUsage, "a recommendation is for one data set; an option of --data has several values",
                "--data", "name one value of each option");
}

// Refuses what cannot end in a certificate, before anything is measured.
void check_documents(const RecommendArguments& options, Certification& certification) {
  const LossSettings& settings = certification.settings();
  const auto n = certification.n_all_documents();
  if (n == 1) {
    throw Error(ErrorKind::kData, "one document says nothing about other documents", options.data,
                "give more documents with questions, or divide it into documents of their own");
  }
  const std::vector<double> right = certification.right_at_most();
  const double most = certification.most(), tolerance = settings.tolerance / settings.unit();
  const size_t n_methods = certification.chains().size();
  const double level = settings.level() / static_cast<double>(n_methods);
  if (can_certify(tolerance, right, most, level)) return;
  double part = 0;
  for (const double one : right) part += one / most / static_cast<double>(n);
  const double least = smallest_tolerance(right, most, level) * settings.unit();
  const std::string fact = fmt::format(
      "a loss of at most {} cannot be certified with {} at {:g} % confidence: {} documents without any loss are needed "
      "for {}{}",
      loss_text(settings, settings.tolerance), count(n, "document"), 100 * settings.confidence,
      lossless_documents(tolerance, part, level), count(static_cast<int64_t>(n_methods), "method"),
      n_methods == 1 ? "" : fmt::format(" ({} for one)", lossless_documents(tolerance, part, settings.level())));
  const std::string smallest =
      least < settings.unit()
          ? fmt::format("the smallest tolerance that {} can certify is {}{}", count(n, "document"),
                        settings.metric == "kl" ? fmt::format("{:.3f} nats", std::ceil(least * 1000) / 1000)
                                                : fmt::format("{:.1f} %", std::ceil(least * 1000) / 10),
                        part < 0.99 ? " (documents with fewer questions than the largest count for less)" : "")
          : fmt::format("{} can certify nothing", count(n, "document"));
  if (options.anyway) {
    fmt::print(stderr, "note: {}; {}. Measuring all the same.\n", fact, smallest);
    return;
  }
  throw Error(
      ErrorKind::kUsage, fact, "--tolerance",
      fmt::format("{}; give more documents, a larger --tolerance or fewer --methods, or measure all the same with "
                  "--anyway",
                  smallest));
}

// A folder that holds results of something else is not added to.
void check_folder(const SweepConfig& config) {
  const Json before = read_json_of_run(config.results + "/config.json");
  if (!before.is_object()) return;
  Json now = config.to_json(), was = before;
  for (Json* one : {&now, &was}) {  // weights elsewhere are the same where their content is, which the runner checks
    for (Json& model : (*one)["model"]) {
      if (model.is_object() && model.contains("path"))
        model["path"] = std::filesystem::path(model.value("path", "")).filename().string();
    }
  }
  for (const char* key : {"model", "dataset", "task", "seed"}) {
    if (was.value(key, Json()) == now.at(key)) continue;
    throw Error(ErrorKind::kUsage,
                fmt::format("the folder holds results of another {}: {}; asked is {}", key,
                            before.value(key, Json()).dump(), now.at(key).dump()),
                config.results, "name another folder with --results");
  }
}

// As it is named on a command line: the name alone where every option has its default.
template <class Interface>
std::string plugin_word(const char* kind, const Json& plugin) {
  const std::string name = plugin.value("name", "");
  Json entry = {{kind, name}};
  if (const auto* known = Registry<Interface>::instance().find(name)) {
    for (const OptionInfo& option : known->options) {
      if (plugin.contains(option.name) && plugin.at(option.name) != option.default_value)
        entry[option.name] = plugin.at(option.name);
    }
  }
  return entry.size() == 1 ? name : "'" + entry.dump() + "'";
}

std::string compact_command(const RecommendArguments& options, const MethodOutcome& method) {
  if (method.certified() == nullptr) return "";
  std::string command = fmt::format("kvc compact --model {} --document FILE.txt --method {}", options.model,
                                    plugin_word<CompactionMethod>("method", method.method));
  if (!method.queries.is_null()) command += " --queries " + plugin_word<QuerySource>("queries", method.queries);
  if (!method.budget.is_null()) command += " --budget " + plugin_word<BudgetRule>("budget", method.budget);
  const Json& target = method.certified()->target;
  return command + fmt::format(" --target {} --out cache.safetensors",
                               target.is_string() ? "'" + target.get<std::string>() + "'" : target.dump());
}

std::string terminal_text(const Recommendation& recommendation, const std::string& folder, size_t width) {
  std::string text = wrapped_text(recommendation_sentence(recommendation), width) + "\n\n";
  if (recommendation.best() != nullptr) text += terminal_table(recommendation_table(recommendation), 1, width) + "\n";
  for (const std::string& note : recommendation_notes(recommendation)) text += wrapped_text("- " + note, width) + "\n";
  if (const MethodOutcome* best = recommendation.best()) text += "\n" + best->command + "\n";
  return text +
         wrapped_text(fmt::format("\nIn {}: recommend.json, recommend.svg, the sweep file recommend.yaml, and the "
                                  "records with their report.",
                                  folder),
                      width) +
         "\n";
}

void check_own_files(const std::string& folder) {
  const std::string json = folder + "/recommend.json";
  std::error_code none;
  if (std::filesystem::exists(json, none) && !has_format(kFormat)(json)) {
    throw Error(ErrorKind::kUsage, "the recommendation would replace a file that kvc did not write", json,
                "move it away, or name another folder with --results");
  }
  if (std::filesystem::exists(json, none)) return;
  for (const char* name : {"recommend.txt", "recommend.yaml", "recommend.svg"}) {
    if (!std::filesystem::exists(folder + "/" + name, none)) continue;
    throw Error(ErrorKind::kUsage,
                "the recommendation would replace a file, and no recommend.json says that it is kvc's",
                folder + "/" + name, "move it away, or name another folder with --results");
  }
}

int recommend(const RecommendArguments& options) {
  const LossSettings settings = loss_settings(options);
  const double within_s = options.within.empty() ? 0 : parse_duration(options.within);
  inspect_model(options.model);
  const auto tokenizer = load_tokenizer(options.model);
  const Json dataset = dataset_entry(options, tokenizer.get());
  const std::string results = options.results.empty() ? "results/" + results_name(options) : options.results;
  std::string text;
  SweepConfig config;
  std::optional<Subject> subject;
  const std::vector<std::string> tasks = candidate_tasks(options);
  for (const std::string& task : tasks) {
    text = sweep_text(options, settings, dataset, task, results);
    config = parse_sweep(ConfigText::from_string(text, "the sweep of kvc recommend"));
    check_sweep_shape(config);
    subject.emplace(config, *tokenizer, settings);
    if (subject->asks_anything()) break;
    subject.reset();
  }
  if (!subject) {
    throw Error(ErrorKind::kData,
                fmt::format("no question of the data can measure {}: {} can ask none of them", options.metric,
                            fmt::join(tasks, ", ")),
                options.data, "give questions with options or answers, or take --metric kl or agreement");
  }
  Certification certification = subject->certification();
  check_documents(options, certification);
  check_folder(config);
  check_report_files(config.results);
  check_own_files(config.results);

  RunOptions run_options;
  run_options.quiet = options.quiet;
  run_options.skip_proof = options.skip_proof;
  run_options.stop_rule = sweep_rule(config);
  run_options.within_s = within_s;
  const RunSummary summary = run_sweep(config, run_options);

  std::vector<std::string> warnings;
  const std::vector<Record> records = load_records(config.results, warnings);
  if (records.empty()) {
    throw Error(ErrorKind::kUsage, "the time was over before anything was measured", "--within " + options.within,
                "allow more time; loading the model and the self-proof count");
  }
  for (const Record& record : records) certification.add(record);
  Recommendation recommendation = recommendation_of(certification, records, option_defaults());
  recommendation.model = options.model;
  recommendation.data = options.data;
  recommendation.task = config.tasks.front().value("name", "");
  recommendation.out_of_time = summary.out_of_time;
  for (MethodOutcome& method : recommendation.methods) method.command = compact_command(options, method);

  const std::string& folder = config.results;
  write_file_atomically(folder + "/recommend.yaml", text);
  write_file_atomically(folder + "/recommend.json", recommendation_json(recommendation).dump(1) + "\n");
  write_file_atomically(folder + "/recommend.svg", render_svg(recommendation_plot(recommendation)));
  write_report(folder, option_defaults(), {terminal_width(), true});
  const std::string shown = terminal_text(recommendation, folder, terminal_width());
  write_file_atomically(folder + "/recommend.txt", shown);
  print_out(shown);
  if (recommendation.documents > 0 && recommendation.right == 0) {
    throw Error(ErrorKind::kData, recommendation_sentence(recommendation), options.data,
                "ask questions that this model answers with its full cache, or take --metric kl or agreement");
  }
  return summary.failed == 0 ? 0 : kSomeFailed;
}

}  // namespace

Runner declare_recommend(CLI::App& app) {
  auto options = std::make_shared<RecommendArguments>();
  CLI::App* command = app.add_subcommand(
      "recommend", "the smallest cache of each method that loses at most so much on your documents, with a guarantee");
  command->add_option("--model", options->model, "GGUF file, or folder as downloaded from a model hub")->required();
  command
      ->add_option("--data", options->data, "your data, the name of a data set, or '{dataset: needle, documents: 300}'")
      ->required();
  command->add_option("--tolerance", options->tolerance,
                      "loss that is tolerated: 1% of what the full cache has; kl: nats per token. Default: 5%, kl 0.1");
  command->add_option("--confidence", options->confidence, "of all that is certified at once")->capture_default_str();
  command
      ->add_option("--metric", options->metric,
                   "accuracy: right answers that go wrong; agreement: tokens that differ; kl: nats per token")
      ->capture_default_str();
  command->add_option("--methods", options->methods, "names or {method: NAME, option: value}, separated by commas")
      ->capture_default_str();
  command->add_option("--targets", options->targets, "sizes to try, as in a sweep file")->capture_default_str();
  command->add_option("--task", options->task, "how accuracy is asked; default: the first that suits the questions");
  command
      ->add_option("--kl-bound", options->kl_bound, "nats that a KL counts at most; only what is bounded is certified")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--within", options->within, "stop after so long, e.g. 2h; the same command goes on");
  command->add_option("--results", options->results,
                      "folder of records and recommendation; default: results/recommend_DATA");
  command->add_option("--dtype", options->dtype, "float32, bfloat16 or auto")->capture_default_str();
  add_seed(*command, options->seed, "of the order of documents and everything random");
  command->add_flag("--anyway", options->anyway, "measure also what the number of documents cannot certify");
  command->add_flag(
      "--every-method", options->every_method,
      "measure each method until it is decided itself; else only the better half goes on, again and again");
  command->add_flag("--quiet", options->quiet, "no progress on stderr");
  command->add_flag("--skip-proof", options->skip_proof, "skip the self-proof; every record says so");
  return [options] { return recommend(*options); };
}

}  // namespace kvc
