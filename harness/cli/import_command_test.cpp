#include <gmock/gmock.h>

#include <algorithm>

#include "harness/cli/cli_test.h"
#include "harness/cli/import_am.h"
#include "harness/sweep/cell.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Json question(const std::string& id, int gold, const std::string& text, int tokens = 12) {
  const char letter = text.empty() ? '\0' : text.back();
  const bool read = letter >= 'A' && letter <= 'D';
  return {{"question_id", id},
          {"question", "Who bought it?"},
          {"options", {"Anna", "Peter", "Karl", "Ida"}},
          {"gold_label", gold},
          {"model_answer_text", text},
          {"model_choice", read ? Json(letter - 'A' + 1) : Json()},
          {"is_correct", read ? Json(letter - 'A' + 1 == gold) : Json()},
          {"generation_time", 0.5},
          {"num_generated_tokens", tokens},
          {"time_per_token", 0.01}};
}

Json result(const std::string& method, double target, const std::string& article, const std::vector<Json>& questions) {
  return {{"article_id", article},
          {"article_title", "The mill"},
          {"article_idx", 0},
          {"method", method},
          {"target_size_param", target},
          {"original_article_tokens", 2000},
          {"effective_article_tokens", 100.0},
          {"tensor_article_tokens", 160.0},
          {"non_article_tokens", 40},
          {"article_compaction_ratio", 20.0},
          {"extraction_time", 1.5},
          {"compaction_time", 3.25},
          {"query_generation_time", 2.0},
          {"qa_results", {{"results_per_question", Json(questions)}, {"total_generation_time", 4.0}}}};
}

// As run_qa_evaluation writes it.
Json evaluation(const std::vector<Json>& results) {
  return {{"timestamp", "20260101_120000"},
          {"hyperparameters",
           {{"AM-OMP", {{"algorithm", "omp"}, {"precomputed_budget_path", "head_budgets/Qwen3-4B/x.json"}, {"k", 4}}}}},
          {"config",
           {{"model_name", "Qwen/Qwen3-4B"},
            {"dataset_name", "quality"},
            {"query_config", {{"method_configs", {{{"method", "context_prefill"}}, {{"method", "self_study"}}}}}}}},
          {"results", Json(results)},
          {"overall_stats", Json::object()}};
}

class Import : public Cli {
 protected:
  Import() { std::filesystem::create_directories(path("am")); }
  void write_run(const std::string& name, const Json& json) const { write("am/" + name, json.dump()); }
  Imported imported(const std::vector<Json>& known = {}) const { return import_am(path("am"), known, {}); }
};

TEST_F(Import, AResultIsARecord) {
  write_run("a.json", evaluation({result("AM-OMP", 0.05, "quality_20002",
                                         {question("q1", 2, "The answer is B"), question("q2", 1, "It is C"),
                                          question("q3", 1, "no idea"), question("q4", 1, "A", 2048)})}));
  const Imported all = imported();
  ASSERT_EQ(all.records.size(), 1U);
  const Record& record = all.records[0];
  EXPECT_EQ(record.document_id, "20002");
  const Cell cell = Cell::from_json(record.cell, "");
  EXPECT_EQ(cell.id(), record.cell_id);
  EXPECT_EQ(cell.model, (Json{{"name", "Qwen3-4B"}}));
  EXPECT_EQ(cell.dataset.at("name"), "quality");
  EXPECT_EQ(
      cell.method,
      (Json{{"name", "reference_AM-OMP"}, {"algorithm", "omp"}, {"precomputed_budget_path", "x.json"}, {"k", 4}}));
  EXPECT_EQ(cell.queries.at("name"), "context_prefill+self_study");
  EXPECT_EQ(cell.target, (TargetSize{.fraction = 0.05}));
  EXPECT_EQ(record.sizes.at("kept_fraction"), 0.05);
  EXPECT_EQ(record.sizes.at("context_tokens"), 2040);
  EXPECT_EQ(record.seconds.at("compaction_s"), 3.25);
  ASSERT_EQ(record.answers.size(), 4U);
  EXPECT_EQ(record.answers[0].at("gold_option"), 1);
  EXPECT_EQ(record.answers[3].at("stop_reason"), "length");
  EXPECT_EQ(all.judged_alike, 4);
  EXPECT_EQ(all.judged_otherwise, 0);
}

TEST_F(Import, OriginalIsTheFullCacheUnlessTheFolderHasItsOwn) {
  write_run("a.json", evaluation({result("original", 0.05, "quality_1", {question("q1", 1, "A")}),
                                  result("no_context", 0.05, "quality_1", {question("q1", 1, "B")})}));
  const Imported alone = imported();
  EXPECT_EQ(alone.records[0].cell.at("method"), (Json{{"name", "full_cache"}}));
  EXPECT_EQ(alone.records[0].cell.at("target"), Json());
  EXPECT_EQ(alone.records[1].cell.at("method"), (Json{{"name", "no_context"}}));
  const Json ours = {{"model", {{"name", "Qwen3-4B.gguf"}, {"dtype", "bfloat16"}}},
                     {"dataset", {{"name", "quality"}, {"path", "dev.jsonl"}}},
                     {"task", {{"name", "multiple_choice"}, {"max_new_tokens", 2048}}},
                     {"method", {{"name", "full_cache"}}}};
  const Imported beside = imported({ours});
  EXPECT_EQ(beside.records[0].cell.at("method"), (Json{{"name", "reference_original"}}));
  for (const char* part : {"model", "dataset", "task"}) EXPECT_EQ(beside.records[0].cell.at(part), ours.at(part));
}

TEST_F(Import, ARunOfTheSameIsAnotherSeed) {
  const Json run = evaluation({result("AM-OMP", 100, "quality_1", {question("q1", 1, "A")})});
  write_run("a.json", run);
  write_run("b.json", run);
  const Imported all = imported();
  ASSERT_EQ(all.records.size(), 2U);
  EXPECT_EQ(all.records[0].cell.at("seed"), 0);
  EXPECT_EQ(all.records[1].cell.at("seed"), 1);
  EXPECT_EQ(all.records[0].cell.at("target"), 100);
}

// Files may be added in front, renamed or gone: what was imported stays, and nothing counts twice.
TEST_F(Import, RecordsAreMatchedByContent) {
  const auto run = [&](const std::string& text) {
    return evaluation({result("AM-OMP", 0.05, "quality_1", {question("q1", 2, text)})});
  };
  const auto texts = [&] {
    std::vector<std::string> found, warnings;
    for (const Record& record : load_records(path("results"), warnings))
      found.push_back(record.answers.at(0).at("text").get<std::string>());
    std::sort(found.begin(), found.end());
    return found;
  };
  const auto import_again = [&] { return kvc({"import", "am", path("am"), "--into", path("results")}); };
  write_run("b.json", run("B"));
  // Without --into: results/, named like the folder.
  const std::filesystem::path here = std::filesystem::current_path();
  std::filesystem::current_path(path(""));
  EXPECT_THAT(kvc({"import", "am", path("am") + "/"}).err, HasSubstr("1 record imported into results/am,"));
  std::filesystem::current_path(here);
  std::filesystem::remove_all(path("results"));
  ASSERT_EQ(import_again().code, 0);
  write_run("a.json", run("A"));
  const Outcome second = import_again();
  EXPECT_THAT(second.err, HasSubstr("1 record imported into " + path("results") + ", 1 were there"));
  EXPECT_EQ(texts(), (std::vector<std::string>{"A", "B"}));
  std::filesystem::rename(path("am") + "/b.json", path("am") + "/0.json");
  EXPECT_THAT(import_again().err, HasSubstr("0 records imported into " + path("results") + ", 2 were there"));
  write_run("a.json", run("C"));
  const Outcome changed = import_again();
  EXPECT_EQ(changed.code, 3);
  EXPECT_THAT(changed.err, AllOf(HasSubstr("the content of 'reference_AM-OMP', article 1, differs from what was"),
                                 HasSubstr("a.json, results[0]")));
  EXPECT_EQ(texts(), (std::vector<std::string>{"A", "B"}));
}

TEST_F(Import, RefusesValuesThatCannotBe) {
  const auto refused = [&](const char* name, const Json& value, bool of_question = false) {
    Json run = evaluation({result("AM-OMP", 0.05, "quality_1", {question("q1", 2, "B")})});
    Json& place = run["results"][0];
    (of_question ? place["qa_results"]["results_per_question"][0] : place)[name] = value;
    write_run("a.json", run);
    const Outcome outcome = kvc({"import", "am", path("am"), "--into", path("results")});
    EXPECT_EQ(outcome.code, 3) << name << " " << value;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("am/a.json, results[0]"), HasSubstr(std::string("'") + name + "' must")));
    EXPECT_FALSE(std::filesystem::exists(path("results")));
  };
  for (const Json& value : {Json(1e300), Json(1.5), Json(-1), Json(0), Json("x"), Json()})
    refused("target_size_param", value);
  for (const char* name : {"original_article_tokens", "effective_article_tokens", "non_article_tokens",
                           "extraction_time", "compaction_time", "query_generation_time"}) {
    for (const Json& value : {Json(-3), Json("x"), Json(1e30)}) refused(name, value);
  }
  for (const Json& value : {Json(-1), Json("x"), Json(2.5), Json(1e18)}) refused("num_generated_tokens", value, true);
}

TEST_F(Import, RefusesAQuestionThatAResultHasTwice) {
  write_run("a.json",
            evaluation({result("AM-OMP", 0.05, "quality_1", {question("q1", 2, "B"), question("q1", 2, "A")})}));
  const Outcome outcome = kvc({"import", "am", path("am"), "--into", path("results")});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("duplicate 'question_id' \"q1\""), HasSubstr("results_per_question[1]")));
}

TEST_F(Import, RefusesItsOwnSourceAndForeignReports) {
  write_run("a.json", evaluation({result("AM-OMP", 0.05, "quality_1", {question("q1", 2, "B")})}));
  const auto n_files = [](const std::string& folder) {
    return std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator());
  };
  const Outcome source = kvc({"import", "am", path("am"), "--into", path("am") + "/."});
  EXPECT_EQ(source.code, 2);
  EXPECT_THAT(source.err, HasSubstr("--into names the folder that is imported"));
  EXPECT_EQ(n_files(path("am")), 1);
  std::filesystem::create_directories(path("foreign"));
  write("foreign/report.md", "mine");
  const Outcome foreign = kvc({"import", "am", path("am"), "--into", path("foreign")});
  EXPECT_EQ(foreign.code, 2);
  EXPECT_THAT(foreign.err, HasSubstr("the report would replace a file that kvc did not write"));
  EXPECT_EQ(n_files(path("foreign")), 1);
}

TEST_F(Import, LongHealthsContextsHaveOurNames) {
  Json run =
      evaluation({result("AM-OMP", 0.1, "longhealth_group_00_patients_01-05", {question("patient_01_q0", 1, "A")})});
  run["config"]["dataset_name"] = "longhealth5";
  write_run("a.json", run);
  const Record record = imported().records.at(0);
  EXPECT_EQ(record.document_id, "patient_01_to_patient_05");
  EXPECT_EQ(record.cell.at("dataset"), (Json{{"name", "longhealth"}, {"patients_per_context", 5}}));
}

// Old runs and ours in one table.
TEST_F(Import, StandsBesideOurRecords) {
  Record ours;
  Cell cell;
  cell.model = {{"name", "Qwen3-4B"}, {"dtype", "bfloat16"}};
  cell.dataset = {{"name", "quality"}, {"path", "dev.jsonl"}};
  cell.task = {{"name", "multiple_choice"}, {"max_new_tokens", 2048}};
  cell.method = {{"name", "snapkv"}};
  cell.target = TargetSize{.fraction = 0.05};
  ours.cell = cell.to_json();
  ours.cell_id = cell.id();
  ours.document_id = "1";
  ours.status = "done";
  ours.answers = {
      Json{{"question_id", "q1"}, {"text", "B"}, {"stop_reason", "end"}, {"gold_option", 0}, {"n_options", 4}}};
  std::filesystem::create_directories(path("results"));
  write("results/" + ours.cell_id + ".jsonl", ours.to_json().dump() + "\n");
  write_run("a.json", evaluation({result("AM-OMP", 0.05, "quality_1", {question("q1", 1, "A")})}));
  const Outcome first = kvc({"import", "am", path("am"), "--into", path("results")});
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.err, AllOf(HasSubstr("1 record imported"), HasSubstr("agree on 1 of 1 answers")));
  const Outcome again = kvc({"import", "am", path("am"), "--into", path("results")});
  EXPECT_THAT(again.err, HasSubstr("0 records imported into " + path("results") + ", 1 were there"));
  const Outcome table = kvc({"table", path("results"), "--format", "csv"});
  EXPECT_THAT(table.out, AllOf(HasSubstr("reference_AM-OMP"), HasSubstr("snapkv"))) << table.err;
  std::ifstream report(path("results") + "/report.json");
  const Json json = Json::parse(report);
  EXPECT_EQ(json.at("tables").size(), 1U);
  EXPECT_EQ(json.at("tables")[0].at("rows").size(), 2U);
}

TEST_F(Import, StoredAnswersNeedTheirRightOnes) {
  write_run("a.json", {{"model_name", "Llama-3.1-8B-Instruct"},
                       {"article_id", "quality_20002"},
                       {"question_ids", {"20002_GO5OYJJA_1"}},
                       {"generations",
                        {{{"question_id", "20002_GO5OYJJA_1"}, {"generated_text", "A"}},
                         {{"question_id", "of_elsewhere"}, {"generated_text", "A"}}}}});
  const Outcome without = kvc({"import", "am", path("am"), "--into", path("results")});
  EXPECT_EQ(without.code, 3);
  EXPECT_THAT(without.err, HasSubstr("stored answers do not say which answers are right"));
  const Outcome with =
      kvc({"import", "am", path("am"), "--into", path("results"), "--data", kRoot + "/datasets/samples/quality.jsonl"});
  EXPECT_EQ(with.code, 0) << with.err;
  EXPECT_THAT(with.err, AllOf(HasSubstr("1 of 2 questions are not in"), HasSubstr("1 record imported")));
}

TEST_F(Import, RefusesOtherLayoutsByName) {
  const auto error_of = [&](const std::string& content) {
    write("am/x.json", content);
    const Outcome outcome = kvc({"import", "am", path("am"), "--into", path("results")});
    EXPECT_EQ(outcome.code, 3);
    EXPECT_FALSE(std::filesystem::exists(path("results")));
    return outcome.err;
  };
  EXPECT_THAT(error_of("{"), AllOf(HasSubstr("the file is not valid JSON"), HasSubstr("am/x.json")));
  EXPECT_THAT(error_of("[]"), HasSubstr("'config' is missing"));
  EXPECT_THAT(error_of(R"({"config":{}})"), HasSubstr("'results' is missing"));
  EXPECT_THAT(error_of(R"({"config":{},"results":[]})"), HasSubstr("'config.model_name' is missing"));
  Json run = evaluation({result("AM-OMP", 0.1, "quality_1", {question("q1", 5, "A")})});
  EXPECT_THAT(error_of(run.dump()), AllOf(HasSubstr("'gold_label' must be 1 to 4; got 5"), HasSubstr("results[0]")));
  run["results"][0].erase("method");
  EXPECT_THAT(error_of(run.dump()), HasSubstr("'method' is missing"));
  run = evaluation({result("AM-OMP", 0.1, "quality_1", {})});
  EXPECT_THAT(error_of(run.dump()), HasSubstr("no answer could be imported"));
  std::filesystem::remove(path("am") + "/x.json");
  EXPECT_THAT(kvc({"import", "am", path("am"), "--into", path("results")}).err,
              HasSubstr("the folder has no .json file"));
  EXPECT_EQ(kvc({"import", "kvpress", path("am"), "--into", path("results")}).code, 2);
}

}  // namespace
}  // namespace kvc
