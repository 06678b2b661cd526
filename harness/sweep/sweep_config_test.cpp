#include "harness/sweep/sweep_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "harness/api/compaction_method.h"
#include "harness/api/dataset.h"
#include "harness/api/query_source.h"
#include "harness/api/task.h"
#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"
#include "harness/sweep/cell.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

SweepConfig parse(const std::string& text) {
  return parse_sweep(ConfigText::from_string(text, "s.yaml"));
}
std::string problem(const std::string& text) {
  return error_of([&] { parse(text); });
}

constexpr const char* kSweep = R"(sweep: t
seed: 7
model: [{path: folder/tiny.gguf, dtype: float32}]
dataset: [{dataset: test_notes, documents: 3, topics: [a, b]}]
task: [test_probe, {task: test_choice}]
queries: [test_queries, {queries: test_queries, n: 8}]
target: [0.5, 0.25, "3 entries"]
method:
  - test_full
  - {method: test_keep_first, begin: [0, 2]}
  - test_queried
  - {method: test_queried, begin: 1, queries: {queries: test_queries, n: 2}, target: 0.125}
)";

TEST(SweepConfig, SaysWhatTheReportComparesWith) {
  const std::string text =
      std::string(kSweep) + "compare_to: test_keep_first (begin=2)\nequivalence: {accuracy: 0.02}\n";
  EXPECT_EQ(parse(text).compare_to, "test_keep_first (begin=2)");
  EXPECT_EQ(parse(text).to_json().at("equivalence"), (Json{{"accuracy", 0.02}}));
  EXPECT_FALSE(parse(kSweep).to_json().contains("compare_to"));
  // A report's settings measure nothing else: the cells stay.
  EXPECT_EQ(expand(parse(text)).front().id(), expand(parse(kSweep)).front().id());
}

TEST(SweepConfig, SaysWhenACellIsMeasuredOnNoFurtherDocuments) {
  const std::string sweep = kSweep;
  EXPECT_FALSE(parse(sweep).stop_when.has_value());
  EXPECT_EQ(parse(sweep).ask_together, 0);
  EXPECT_EQ(parse(sweep + "ask_together: auto\n").ask_together, 0);
  EXPECT_EQ(parse(sweep + "ask_together: 4\n").ask_together, 4);
  const StopWhen plain = *parse(sweep + "stop_when: decided\n").stop_when;
  EXPECT_EQ(plain.rule, "decided");
  EXPECT_EQ(plain.tolerance, (std::map<std::string, double>{{"accuracy", 0.05}, {"kl", 0.1}}));
  EXPECT_EQ(plain.confidence, 0.95);
  const SweepConfig full = parse(sweep +
                                 "stop_when: {rule: certified, tolerance: {agreement: 1 %, kl: 0.5}, confidence: 90%, "
                                 "kl_bound: 3, give_up: false, halving: true}\n");
  EXPECT_EQ(full.stop_when->tolerance, (std::map<std::string, double>{{"agreement", 0.01}, {"kl", 0.5}}));
  EXPECT_EQ(full.stop_when->confidence, 0.9);
  EXPECT_EQ(full.to_json().at("stop_when"), full.stop_when->to_json());
  EXPECT_EQ(expand(full).front().id(), expand(parse(sweep)).front().id());  // the cells stay
  for (const auto& [given, problem_text] : std::vector<std::pair<const char*, const char*>>{
           {"ask_together: 0", "'ask_together' must be auto or a number from 1; got 0"},
           {"ask_together: all", "'ask_together' must be auto or a number from 1; got \"all\""},
           {"stop_when: 3", "'stop_when' must be a rule or a mapping; got 3"},
           {"stop_when: decidd",
            "'rule' must be decided or certified; got \"decidd\"\n  where: s.yaml:13, "
            "stop_when.rule\n  mend:  did you mean 'decided'?"},
           {"stop_when: {rule: decided, tolerance: 0.1}", "'tolerance' must say what is tolerated of which loss"},
           {"stop_when: {rule: decided, tolerance: {acuracy: 0.1}}", "unknown loss 'acuracy'"},
           {"stop_when: {rule: decided, tolerance: {accuracy: 1.5}}", "must be above 0 and below 1; got 1.5"},
           {"stop_when: {rule: decided, tolerance: {kl: 2}}", "the tolerance of kl must be above 0 and below 2"},
           {"stop_when: {rule: decided, confidence: 0.3}", "'confidence' must be above 0.5 and below 1; got 0.3"},
           {"stop_when: {rule: decided, kl_bound: 0}", "'kl_bound' must be nats above 0; got 0"},
           {"stop_when: {rule: decided, after: 3}", "unknown key 'after'"}}) {
    EXPECT_THAT(problem(sweep + given + "\n"), HasSubstr(problem_text));
  }
}

TEST(SweepConfig, MultipliesWhatBelongsTogether) {
  const SweepConfig config = parse(kSweep);
  EXPECT_EQ(config.results, "results/t");
  EXPECT_EQ(config.proof_tokens, 512);
  ASSERT_EQ(config.methods.size(), 5u);
  EXPECT_EQ(
      config.datasets[0].dump(),
      R"({"name":"test_notes","documents":3,"letters":60,"long_document":false,"version":"a","topics":["a","b"],"questions":2})");
  // 2 tasks x (full 1 + first 2 x 3 targets + queried 2 queries x 3 targets + queried 1 x 1)
  const std::vector<Cell> cells = expand(config);
  EXPECT_EQ(cells.size(), 2u * (1 + 6 + 6 + 1));
  std::set<std::string> ids;
  for (const Cell& cell : cells) ids.insert(cell.id());
  EXPECT_EQ(ids.size(), cells.size());
  // Cells that share queries stand together.
  std::vector<Json> order;
  for (const Cell& cell : cells) {
    if (order.empty() || order.back() != cell.queries) order.push_back(cell.queries);
  }
  EXPECT_EQ(order.size(), 4u);
}

TEST(SweepConfig, BudgetsAreAnAxisOfMethodsWithATarget) {
  const std::string text =
      std::string(kSweep) +
      R"(  - {method: test_keep_first, begin: 5, budget: [{budget: pyramid, beta: [5, 20]}, adaptive]}
budget: [uniform, pyramid]
)";
  const std::vector<Cell> cells = expand(parse(text));
  // 2 tasks x (full 1 + 2 budgets x (6 + 6 + 1) + own 3 budgets x 3 targets)
  EXPECT_EQ(cells.size(), 2u * (1 + 2 * 13 + 9));
  std::set<std::string> ids, budgets;
  for (const Cell& cell : cells) {
    ids.insert(cell.id());
    budgets.insert(canonical_json(cell.budget));
    EXPECT_EQ(cell.to_json().contains("budget"), !cell.budget.is_null());
  }
  EXPECT_EQ(ids.size(), cells.size());
  EXPECT_EQ(budgets,
            (std::set<std::string>{"null", R"({"beta":20.0,"name":"pyramid"})", R"({"beta":5.0,"name":"pyramid"})",
                                   R"({"floor_fraction":0.2,"name":"adaptive","safeguard":"floor","scope":"layer"})"}));
}

TEST(SweepConfig, TellsWhatIsWrongWithABudget) {
  const std::string with_own = std::string(kSweep) + "  - {method: test_keep_first, begin: 5, budget: ";
  EXPECT_THAT(problem(with_own + "pyramide}\n"), HasSubstr("unknown budget 'pyramide'"));
  EXPECT_THAT(problem(with_own + "{budget: pyramid, beta: 0}}\n"), HasSubstr("'beta' must be 1 to 1000000; got 0"));
  EXPECT_THAT(problem(with_own + "{budget: adaptive, scope: head}}\n"),
              HasSubstr("must be layer, all or layers; got 'head'"));
  EXPECT_THAT(problem(with_own + "proportions}\n"), HasSubstr("'file' must name a file"));
  EXPECT_THAT(problem(with_own + "[]}\n"), HasSubstr("the list of budgets is empty"));
  EXPECT_THAT(problem(with_own + "{budget: proportions, file: /no/such.json}}\n"), HasSubstr("/no/such.json"));
  EXPECT_THAT(problem(std::string(kSweep) + "  - {method: test_full, budget: pyramid}\n"),
              HasSubstr("method 'test_full' takes no budget"));
}

// A file that an entry names rightly is looked for with data and models: what else the file says stays known.
TEST(SweepConfig, FilesThatEntriesNameAreToldApart) {
  const TemporaryFolder folder;
  const std::string missing = "{budget: proportions, file: /no/such.json}";
  const std::string text = std::string(kSweep) +
                           "  - {method: test_keep_first, begin: 5, target: 4096 B, budget: " + missing +
                           "}\ncompare_to: test_keep_first\n";
  const LoadedSweep loaded = load_sweep_and_files(folder.write("s.yaml", text));
  EXPECT_FALSE(loaded.complete());
  ASSERT_EQ(loaded.of_files.size(), 1u);
  EXPECT_THAT(loaded.of_files[0].fact, HasSubstr("/no/such.json"));
  EXPECT_THAT(loaded.of_files[0].where, HasSubstr("s.yaml:13"));
  EXPECT_EQ(loaded.sweep.models.size(), 1u);
  EXPECT_EQ(loaded.sweep.written_bytes.at(4096), "4096 B");
  EXPECT_TRUE(load_sweep_and_files(folder.write("fine.yaml", kSweep)).complete());
  // Beside a mistake in the file both are named, and everywhere else a missing file is one.
  EXPECT_THAT(error_of([&] { load_sweep_and_files(folder.write("s.yaml", text + "sed: 7\n")); }),
              ::testing::AllOf(HasSubstr("2 problems in"), HasSubstr("/no/such.json"), HasSubstr("'sed'")));
  EXPECT_THAT(problem(text), HasSubstr("/no/such.json"));
}

TEST(SweepConfig, SeedsAndModelsAreAxes) {
  std::string text = kSweep;
  text.replace(text.find("seed: 7"), 7, "seed: [7, 8]");
  text.replace(text.find("dtype: float32"), 14, "dtype: [float32, bfloat16]");
  EXPECT_EQ(expand(parse(text)).size(), 4u * 28);
}

TEST(SweepConfig, ReadsJsonLikeYaml) {
  const Json json = ConfigText::from_string(kSweep, "s.yaml").value();
  const SweepConfig config = parse_sweep(ConfigText::from_string(json.dump(1), "s.json"));
  EXPECT_EQ(config.to_json(), parse(kSweep).to_json());
  std::vector<std::string> one, other;
  for (const Cell& cell : expand(config)) one.push_back(cell.id());
  for (const Cell& cell : expand(parse(kSweep))) other.push_back(cell.id());
  EXPECT_EQ(one, other);
}

TEST(SweepConfig, ShippedConfigsAreRight) {
  const std::string folder = KVC_SOURCE_DIR "/configs/";
  const SweepConfig demo = load_sweep(folder + "demo.yaml");
  // 2 data sets x 2 tasks x (2 without target + 9 methods with queries and budgets x 3 targets)
  EXPECT_EQ(expand(demo).size(), 2u * 2 * 29);
  EXPECT_EQ(load_sweep(folder + "smoke.yaml").to_json(), load_sweep(folder + "smoke.json").to_json());
  int n_paper = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder + "paper")) {
    if (file.path().extension() != ".yaml") continue;
    // The published head budgets are the user's to fetch: a file of the same form in their place.
    const std::regex budget("data/head_budgets/[^,}]*json");
    const std::string text = std::regex_replace(read_text_file(file.path().string()), budget,
                                                "results/published/budgets/smollm2-135m-instruct.json");
    EXPECT_FALSE(expand(parse_sweep(ConfigText::from_string(text, file.path().string()))).empty()) << file.path();
    ++n_paper;
  }
  EXPECT_GE(n_paper, 7);
}

TEST(Cell, IdsAreStable) {
  Cell cell;
  cell.model = Json{{"name", "tiny.gguf"}, {"dtype", "float32"}, {"chat_template", ""}};
  cell.dataset = Json{{"name", "notes"}, {"documents", 2}};
  cell.task = Json{{"name", "probe"}};
  cell.queries = nullptr;
  cell.method = Json{{"name", "first"}, {"begin", 0}};
  cell.target = TargetSize{.fraction = 0.05};
  cell.seed = 7;
  EXPECT_EQ(
      canonical_json(cell.to_json()),
      R"({"dataset":{"documents":2,"name":"notes"},"method":{"begin":0,"name":"first"},)"
      R"("model":{"chat_template":"","dtype":"float32","name":"tiny.gguf"},"queries":null,"seed":7,"target":0.05,)"
      R"("task":{"name":"probe"}})");
  EXPECT_EQ(cell.id(), "b0a31c09216a10c2");
  Cell reordered = cell;
  reordered.model = Json{{"chat_template", ""}, {"name", "tiny.gguf"}, {"dtype", "float32"}};
  EXPECT_EQ(reordered.id(), cell.id());
  for (const auto& change : std::vector<std::function<void(Cell&)>>{
           [](Cell& c) { c.seed = 8; }, [](Cell& c) { c.target->fraction = 0.1; },
           [](Cell& c) { c.target = TargetSize{.unit = TargetSize::Unit::kEntries, .entries = 512}; },
           [](Cell& c) { c.model["dtype"] = "bfloat16"; }, [](Cell& c) { c.method["begin"] = 1; },
           [](Cell& c) {
             c.queries = Json{{"name", "q"}};
           }}) {
    Cell other = cell;
    change(other);
    EXPECT_NE(other.id(), cell.id());
  }
}

TEST(Cell, ComesBackFromARecord) {
  const std::string text =
      std::string(kSweep) +
      "  - {method: test_keep_first, begin: 3, target: [1, 3 entries, 5 MiB], budget: [pyramid, uniform]}\n";
  for (const Cell& cell : expand(parse(text))) {
    const Cell back = Cell::from_json(cell.to_json(), "here");
    EXPECT_EQ(back.id(), cell.id());
    EXPECT_EQ(back.label(), cell.label());
    EXPECT_EQ(back.target, cell.target);
    EXPECT_EQ(back.budget, cell.budget);
  }
  Json wrong = expand(parse(kSweep)).back().to_json();
  wrong["target"] = "much";
  EXPECT_EQ(
      error_of([&] { Cell::from_json(wrong, "a.jsonl, record 3"); }),
      "the cell's target must be a fraction, a number of entries or bytes; got \"much\"\n  where: a.jsonl, record 3\n"
      "  mend:  delete the record's line and run the sweep again");
}

TEST(Cell, IdsDoNotDependOnSpellingFolderOrDevice) {
  const auto ids = [](const std::string& text) {
    std::set<std::string> set;
    for (const Cell& cell : expand(parse(text))) set.insert(cell.id());
    return set;
  };
  const std::string tail = "task: test_probe\ntarget: [0.5, 0.25]\n";
  const auto one = ids("sweep: a\nmodel: x/m.gguf\ndataset: test_notes\nmethod: [test_full, test_keep_first]\n" + tail);
  const auto other =
      ids("method: [{begin: 0, method: test_keep_first}, {method: test_full}]\nsweep: b\nresults: elsewhere\n"
          "dataset: [{letters: 60, dataset: test_notes}]\nmodel: {path: /y/m.gguf, device: cpu}\n"
          "task: [test_probe]\ntarget: [0.25, 5e-1]\n");
  EXPECT_EQ(one, other);
  EXPECT_EQ(one.size(), 3u);
}

std::string with(const std::string& key, const std::string& line) {
  std::string text;
  for (const auto& [k, v] : std::vector<std::pair<std::string, std::string>>{{"sweep", "sweep: t"},
                                                                             {"model", "model: m.gguf"},
                                                                             {"dataset", "dataset: test_notes"},
                                                                             {"task", "task: test_probe"},
                                                                             {"target", "target: 0.5"},
                                                                             {"method", "method: test_keep_first"}}) {
    if (k == key && line.empty()) continue;
    text += (k == key ? line : v) + "\n";
  }
  return text;
}

// configs/README.md has a row for each key of a sweep and of a model.
TEST(SweepConfig, EveryKeyIsOnThePage) {
  const std::string page = read_text_file(KVC_SOURCE_DIR "/configs/README.md");
  std::string known;
  try {
    parse_sweep(ConfigText::from_string(with("sweep", "sweep: t\nzzz: 1"), "s.yaml"));
  } catch (const Error& error) {
    known = error.what();
  }
  std::istringstream keys(known.substr(known.find("nown: ") + 6));
  int n_keys = 0;
  for (std::string key; std::getline(keys, key, ','); ++n_keys) {
    key.erase(0, key.find_first_not_of(' '));
    EXPECT_THAT(page, HasSubstr("\n| `" + key + "` |"));
  }
  EXPECT_GE(n_keys, 12);
  for (const OptionInfo& option : describe_options<ModelConfig>())
    EXPECT_THAT(page, HasSubstr("\n| `" + option.name + "` |")) << option.name;
}

TEST(SweepConfig, WithoutQueriesAMethodGetsItsPapersSource) {
  const std::string text = with("method", "method: [test_queried, snapkv, kvzip, random_keys]");
  ASSERT_FALSE(parse_sweep(ConfigText::from_string(text, "s.yaml")).methods.empty());
  std::map<std::string, std::string> sources;
  for (const SweepMethod& method : parse_sweep(ConfigText::from_string(text, "s.yaml")).methods) {
    ASSERT_EQ(method.queries.size(), 1u);
    const Json& source = method.queries.front();
    sources[method.method.at("name")] = source.is_null() ? "" : source.at("name").get<std::string>();
  }
  const std::map<std::string, std::string> expected = {{"test_queried", "test_queries"},
                                                       {"snapkv", "context_prefill"},
                                                       {"kvzip", "repeat_prefill"},
                                                       {"random_keys", ""}};
  EXPECT_EQ(sources, expected);
}

TEST(SweepConfig, TellsEachProblemWithLineAndCure) {
  const auto methods = Registry<CompactionMethod>::instance().names();
  const auto tasks = Registry<Task>::instance().names();
  const struct {
    std::string text, expected;
  } cases[] = {
      {with("sweep", "sweep: ../t"),
       "the sweep's name must be a safe folder name; got '../t'\n  where: s.yaml:1, sweep\n  mend:  use 1 to 64 of the "
       "letters "
       "a-z, A-Z, "
       "0-9, '_', '-' and '.', the first one a letter, digit or '_'"},
      {with("sweep", "sweep: 2024"),
       "the sweep's name must be a text; got 2024\n  where: s.yaml:1, sweep\n  mend:  write it in quotes: sweep: "
       "\"2024\""},
      {with("sweep", ""), "the sweep has no name\n  where: s.yaml:1, sweep\n  mend:  write 'sweep: NAME'"},
      {with("method", "method: test_keep_frist"),
       "unknown method 'test_keep_frist'\n  where: s.yaml:6, method\n  mend:  " +
           suggest_name("test_keep_frist", methods)},
      {with("method", "method:\n  - {method: test_keep_first,\n     begn: 3}"),
       "unknown option 'begn'\n  where: s.yaml:8, method[0].begn\n  mend:  did you mean 'begin'? Known: begin"},
      {with("method", "method: [{method: test_keep_first, begin: [0, -1]}]"),
       "'begin' is -1\n  where: s.yaml:6, method[0].begin\n  mend:  0 or more"},
      {with("method", "method: [{method: test_keep_first, begin: []}]"),
       "'begin' is an empty list\n  where: s.yaml:6, method[0].begin\n  mend:  name a value"},
      {with("method", "method: [{begin: 1}]"),
       fmt::format(
           "an entry of 'method' has no name\n  where: s.yaml:6, method[0]\n  mend:  write a name, or {{method: NAME, "
           "option: value}}; known: {}",
           fmt::join(methods, ", "))},
      {with("method", "method: [test_keep_first, {method: test_keep_first, begin: 0}]"),
       "duplicate method {\"name\":\"test_keep_first\",\"begin\":0}\n  where: s.yaml:6, method[1]\n  mend:  keep "
       "one of them; "
       "the other: s.yaml:6, method[0]"},
      {with("method", "method: [{method: test_full, target: 0.5}]"),
       "method 'test_full' takes no target\n  where: s.yaml:6, method[0].target\n  mend:  delete the key"},
      {with("method", "method: [{method: test_full, queries: test_queries}]"),
       "method 'test_full' takes no queries\n  where: s.yaml:6, method[0].queries\n  mend:  delete the key"},
      {with("target", ""),
       "method 'test_keep_first' needs a target, but none is given\n  where: s.yaml:5, method\n  mend:  add 'target: "
       "[0.1, 0.05]'"},
      {with("target", "target: [0.5, 5e-1]"),
       "duplicate target 0.5\n  where: s.yaml:5, target[1]\n  mend:  keep one of them"},
      {with("task", ""),
       fmt::format("section 'task' is missing\n  where: s.yaml:1, task\n  mend:  add it: 'task: [NAME]'; known: {}",
                   fmt::join(tasks, ", "))},
      {with("task", "task: []"), "section 'task' is empty\n  where: s.yaml:4, task\n  mend:  name at least one"},
      {with("model", "model: [{dtype: float32}]"),
       "a model has no path\n  where: s.yaml:2, model[0]\n  mend:  write {path: FILE.gguf} or {path: FOLDER}"},
      {with("model", "model: [a/m.gguf, b/m.gguf]"),
       "two models have the same name in results: {\"name\":\"m.gguf\",\"dtype\":\"auto\",\"chat_template\":\"\"}\n  "
       "where: s.yaml:2, "
       "model[1]\n  mend:  keep one of them, or give the files different names"},
      {with("dataset", "dataset: [test_notes, test_notes]"),
       "duplicate dataset "
       "{\"name\":\"test_notes\",\"documents\":2,\"letters\":60,\"long_document\":false,\"version\":\"a\",\"topics\":[]"
       ",\"questions\":2}\n  where: s.yaml:3, dataset[1]\n  mend:  keep one of them"},
      {with("sweep", "sweep: t\nseeed: 3"),
       "unknown key 'seeed'\n  where: s.yaml:2, seeed\n  mend:  did you mean 'seed'? Known: sweep, seed, results, "
       "references, proof_tokens, "
       "model, dataset, task, queries, target, budget, method, compare_to, equivalence, stop_when, ask_together"},
      // Read on as the key that was meant: nothing is said to be missing.
      {with("target", "targte: [0.5]"),
       "unknown key 'targte'\n  where: s.yaml:5, targte\n  mend:  did you mean 'target'? Known: sweep, seed, results, "
       "references, proof_tokens, "
       "model, dataset, task, queries, target, budget, method, compare_to, equivalence, stop_when, ask_together"},
      {with("sweep", "sweep: t\ncompare_to: test_fool"),
       "'compare_to' must be a method of this sweep; got \"test_fool\"\n  where: s.yaml:2, compare_to\n  mend:  one "
       "of: "
       "test_keep_first"},
      {with("sweep", "sweep: t\nequivalence: {accuracy: 0}"),
       "'equivalence' must be a margin above 0 for each metric; got {\"accuracy\":0}\n  where: s.yaml:2, equivalence\n "
       " "
       "mend:  write 'equivalence: {accuracy: 0.05, kl: 0.1}'"},
      {with("sweep", "sweep: t\nseed: -1"),
       "a seed must be a whole number from 0; got -1\n  where: s.yaml:2, seed\n  mend:  write 'seed: 7'"},
      {with("sweep", "sweep: t\nseed: null"),
       "a seed must be a whole number from 0; got null\n  where: s.yaml:2, seed\n  mend:  write 'seed: 7'"},
      {with("sweep", "sweep: t\nproof_tokens: many"),
       "'proof_tokens' must be a whole number from 0; got \"many\"\n  where: s.yaml:2, proof_tokens\n  mend:  write a "
       "number "
       "of tokens, or 0 for the whole "
       "article"},
      {"",
       "the file is empty\n  where: s.yaml:1\n  mend:  a sweep has the keys sweep, seed, results, references, "
       "proof_tokens, model, "
       "dataset, "
       "task, queries, target, budget, method, compare_to, equivalence, stop_when, ask_together"},
  };
  for (const auto& c : cases) EXPECT_EQ(problem(c.text), c.expected) << c.text;
}

TEST(SweepConfig, RefusesTargetsOutOfRange) {
  for (const char* target : {"0.0", "-0.1", "1.5", "0", "\"0 entries\"", "many", "[0.5, -1.0]", "[]"}) {
    const std::string text = problem(with("target", std::string("target: ") + target));
    EXPECT_THAT(text, HasSubstr("s.yaml:5, target")) << target;
  }
}

TEST(SweepConfig, ReportsAllProblemsAtOnce) {
  const std::string text = problem(
      "sweep: t\nmodel: [{path: m.gguf, dtipe: x}]\ndataset: nots\ntask: [test_probe]\ntarget: 2.0\n"
      "method:\n  - test_keep_first\n  - {method: test_keep_first, begn: [1, 2]}\n");
  EXPECT_THAT(text, HasSubstr("4 problems in s.yaml\n1. unknown option 'dtipe'\n  where: s.yaml:2, model[0].dtipe"));
  EXPECT_THAT(text, HasSubstr("2. unknown dataset 'nots'\n  where: s.yaml:3, dataset"));
  EXPECT_THAT(text, HasSubstr("\n3. "));
  EXPECT_THAT(text, HasSubstr("s.yaml:5, target"));
  EXPECT_THAT(text, HasSubstr("4. unknown option 'begn'\n  where: s.yaml:8, method[1].begn"));
}

}  // namespace
}  // namespace kvc
