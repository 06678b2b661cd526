// Records to tables: judged, averaged over seeds, labelled and counted.
#include "harness/report/tabulate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/report/report.h"
#include "harness/report/test_records.h"
#include "harness/testing/checks.h"

namespace kvc {
namespace {

using test_records::match;
using test_records::one;
using test_records::Shape;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Metric, ErrorsNameTheRecord) {
  const Record record = one("likelihood", "x", 0.5, {{{"question_id", "q"}, {"gold_option", 0}}});
  EXPECT_THAT(error_of([&] { question_values(record); }),
              HasSubstr("record of cell " + record.cell_id + ", document 'd'"));
  EXPECT_TRUE(question_values(one("no_such_task", "x", 0.5, {{{"question_id", "q"}}})).empty());
}

// Records of two ages stand in one report: those without a value count nowhere.
TEST(Metric, AMetricThatSomeAnswersLack) {
  Json old = {
      {"question_id", "a"}, {"gold_option", 1}, {"option_log_likelihood", {-4.0, -6.0}}, {"option_tokens", {2, 6}}};
  Json recent = old;
  recent["question_id"] = "b";
  recent["option_log_likelihood_neutral"] = {-4.0, -9.0};
  const Tabulated t =
      tabulate({one("likelihood", "full_cache", nullptr, {old, recent}), one("likelihood", "h2o", 0.1, {old, recent})});
  const CellSummary& cell = *t.tables.at(0).rows.at(1).cells.at(0);
  EXPECT_EQ(cell.metrics[0].estimate.n_questions, 2);
  EXPECT_EQ(cell.metrics[2].estimate.n_questions, 1);
  EXPECT_EQ(cell.metrics[2].estimate.mean, 1);
  EXPECT_EQ(cell.metrics[2].versus_full->pair.difference.n_questions, 1);
  EXPECT_THAT(score_lines(t), HasSubstr("\"values\":{\"accuracy\":1.0,\"accuracy_raw\":0.0}"));
  const Tabulated none = tabulate({one("likelihood", "h2o", 0.1, {old})});
  EXPECT_THAT(report_markdown(none, "x"), ::testing::Not(HasSubstr("gain over no document")));
  EXPECT_THAT(report_markdown(t, "x"), HasSubstr("gain over no document"));
  EXPECT_THAT(report_csv(none), ::testing::Not(HasSubstr("nan")));
}

Json turned(const std::string& text, int shift, const std::string& stop = "end") {
  return {{"text", text}, {"stop_reason", stop}, {"shift", shift}};
}

// A model that always says A has no letter to be lucky with: 1 / n of each question.
TEST(Metric, RotationsTakeAwayLetterBias) {
  std::vector<Json> answers;
  for (int q = 0; q < 4; ++q) {
    Json answer = {{"question_id", "q" + std::to_string(q)}, {"gold_option", 0}, {"n_options", 4}};
    for (int shift = 0; shift < 4; ++shift) answer["rotations"].push_back(turned("The answer is: A", shift));
    answers.push_back(answer);
  }
  const Tabulated t =
      tabulate({one("multiple_choice", "h2o", 0.1, answers), one("multiple_choice", "snapkv", 0.1, answers)});
  const Table& table = t.tables.at(0);
  EXPECT_EQ(table.rows[0].cells[0]->metrics[0].estimate.mean, 0.25);
  EXPECT_EQ(table.rows[0].cells[0]->metrics[0].estimate.interval.kind, IntervalKind::kWilson);
  ASSERT_FALSE(table.comparison.pairs.empty());
  EXPECT_FALSE(table.comparison.pairs[0].pair.p_mcnemar);  // shares of a question are no single answers
}

// Every cell of a document repeats the counts of its references; a run that goes on finds what it made before.
TEST(Tabulate, ReferencesAreCountedOncePerDocument) {
  Record first = one("exact_match", "full_cache", nullptr, {match("a", true)});
  Record second = one("exact_match", "h2o", 0.1, {match("a", true)});
  first.task_notes = {{"references", {{"kept", 1}, {"made", 3}}}};
  second.task_notes = {{"references", {{"kept", 4}, {"made", 0}}}};
  const Tabulated t = tabulate({first, second});
  EXPECT_EQ(t.n_references, 4);
  EXPECT_EQ(t.n_references_kept, 1);
  EXPECT_THAT(report_markdown(t, "x"), HasSubstr("4 reference answers, 1 of them kept from before."));
  EXPECT_EQ(report_json(t).at("references"), (Json{{"total", 4}, {"kept", 1}}));
}

TEST(Tabulate, QuestionsThatATaskCannotAskAreCounted) {
  Record first = one("exact_match", "full_cache", nullptr, {match("a", true)});
  Record second = one("exact_match", "h2o", 0.1, {match("a", true)});
  first.task_notes = second.task_notes = {{"questions", {{"asked", 1}, {"in_document", 4}}}};
  const Tabulated t = tabulate({first, second});
  ASSERT_EQ(t.warnings.size(), 1u);
  EXPECT_THAT(t.warnings[0], HasSubstr("3 of 4 questions in one document were left out: the task cannot ask them"));
}

TEST(Tabulate, FitsOfFewQueriesAreWarnedOfOnceForADataSet) {
  std::vector<Record> records;
  for (const char* task : {"exact_match", "likelihood"}) {
    for (const auto& [target, heads] : {std::pair(0.5, 90), std::pair(0.2, 12), std::pair(0.1, 0)}) {
      records.push_back(one(task, "am_omp", target, {match("a", true)}));
      if (heads > 0) records.back().notes = {{"heads_with_few_queries", heads}};
    }
    records.push_back(one(task, "h2o", 0.5, {match("a", true)}));
  }
  const Tabulated t = tabulate(records);
  std::vector<std::string> told;
  for (const std::string& warning : t.warnings) {
    if (warning.find("reference queries") != std::string::npos) told.push_back(warning);
  }
  ASSERT_EQ(told.size(), 1u);
  EXPECT_THAT(told[0], HasSubstr("s, am_omp at 0.5: 90 heads of a document are fitted with fewer than two reference"));
}

TEST(Tabulate, SaysWhichQuestionsTheModelWrote) {
  Json own = match("a", true), given = match("b", true);
  own["extra"] = {{"written_by", "model"}};
  given["extra"] = Json::object();
  const auto warned = [](const std::vector<Json>& answers) {
    const Tabulated t = tabulate({one("exact_match", "full_cache", nullptr, answers)});
    return report_markdown(t, "x");
  };
  EXPECT_THAT(warned({own, given}), HasSubstr("1 of 2 questions were written by the model itself"));
  EXPECT_THAT(warned({given}), ::testing::Not(HasSubstr("written by the model")));
  own["extra"]["written_by"] = Json::array();  // nothing that this program writes
  EXPECT_THAT(warned({own, given}), ::testing::Not(HasSubstr("written by the model")));
}

TEST(Tabulate, RetainedAndDifferenceAreByQuestion) {
  const auto ask = [](const char* method, const Json& target, std::vector<bool> right) {
    std::vector<Json> answers;
    for (size_t i = 0; i < right.size(); ++i) answers.push_back(match("q" + std::to_string(i), right[i]));
    return one("exact_match", method, target, answers);
  };
  const Tabulated t =
      tabulate({ask("full_cache", nullptr, {true, true, true, false}),
                ask("no_context", nullptr, {true, false, false, false}), ask("h2o", 0.1, {true, true, false, false})});
  const Table& table = t.tables.at(0);
  ASSERT_EQ(table.rows.size(), 3u);
  EXPECT_EQ(table.rows[0].role, Role::kCeiling);
  EXPECT_EQ(table.rows[2].role, Role::kFloor);
  const MetricSummary& metric = table.rows[1].cells[0]->metrics[0];
  EXPECT_DOUBLE_EQ(metric.estimate.mean, 0.5);
  EXPECT_DOUBLE_EQ(metric.versus_full->pair.difference.mean, -0.25);
  EXPECT_EQ(metric.estimate.interval.kind, IntervalKind::kWilson);  // one document
  EXPECT_FALSE(metric.retained);                                    // two questions of four tell nothing of a ratio
  const std::vector<bool> all(20, true), none(20, false);
  std::vector<bool> half = none;
  std::fill(half.begin(), half.begin() + 10, true);
  const Tabulated clear =
      tabulate({ask("full_cache", nullptr, all), ask("no_context", nullptr, none), ask("h2o", 0.1, half)});
  EXPECT_DOUBLE_EQ(clear.tables[0].rows[1].cells[0]->metrics[0].retained->value, 0.5);
  // No share is retained of a full cache that is no better than nothing.
  const Tabulated flat =
      tabulate({ask("full_cache", nullptr, {true}), ask("no_context", nullptr, {true}), ask("h2o", 0.1, {true})});
  EXPECT_FALSE(flat.tables[0].rows[1].cells[0]->metrics[0].retained.has_value());
}

Record under_seed(Record record, int seed) {
  record.cell["seed"] = seed;
  record.cell_id = stable_hash(canonical_json(record.cell));
  return record;
}

// The same answers under ten seeds are the same evidence: no interval, no p and no number of questions changes.
TEST(Tabulate, SeedsAreNoNewQuestions) {
  Shape shape;
  shape.n_documents = 6;
  const std::vector<Record> once = test_records::make(shape);
  std::vector<Record> copied;
  for (const Record& record : once) {
    for (int seed = 7; seed < 17; ++seed) copied.push_back(under_seed(record, seed));
  }
  const Json one = report_json(tabulate(once)), ten = report_json(tabulate(copied));
  for (size_t t = 0; t < one.at("tables").size(); ++t) {
    const Json& table = one.at("tables")[t];
    const Json& other = ten.at("tables")[t];
    // Sizes are sums of floats, whose last bit may change with their number.
    const auto statistics_of = [](Json comparison) {
      for (Json& pair : comparison["pairs"]) pair.erase("kept_fractions");
      return comparison;
    };
    EXPECT_EQ(statistics_of(table.at("comparison")), statistics_of(other.at("comparison")));
    for (size_t row = 0; row < table.at("rows").size(); ++row) {
      for (size_t cell = 0; cell < table.at("rows")[row].at("cells").size(); ++cell) {
        EXPECT_EQ(table.at("rows")[row].at("cells")[cell].at("metrics"),
                  other.at("rows")[row].at("cells")[cell].at("metrics"));
      }
    }
  }
}

TEST(Tabulate, AnswersUnderSeveralSeedsAreAveraged) {
  const auto record = [](int seed, bool right) {
    return under_seed(one("exact_match", "h2o", 0.1, {match("a", right), match("b", true)}), seed);
  };
  const Tabulated t = tabulate({record(1, true), record(2, false), record(3, false), record(4, false)});
  const CellSummary& cell = *t.tables.at(0).rows.at(0).cells.at(0);
  EXPECT_EQ(cell.metrics[0].estimate.n_questions, 2);
  EXPECT_DOUBLE_EQ(cell.metrics[0].estimate.mean, (0.25 + 1) / 2);
  EXPECT_EQ(cell.answers.size(), 8u);
  EXPECT_EQ(occurrences(score_lines(t), "\n"), 8u);
}

// Needles draw their codes and texts from the seed: another document, whatever its name.
TEST(Tabulate, ADocumentWhoseAnswersDependOnTheSeedIsAnotherOneUnderEach) {
  const auto record = [](int seed, const std::string& code) {
    Record r = one("exact_match", "h2o", 0.1, {match("a", true)}, "needle_1");
    r.answers[0]["gold_answer"] = code;
    return under_seed(r, seed);
  };
  const Tabulated t = tabulate({record(1, "4821"), record(2, "1932")});
  EXPECT_EQ(t.tables.at(0).rows.at(0).cells.at(0)->metrics[0].estimate.n_documents, 2);
  EXPECT_EQ(t.tables.at(0).rows.at(0).cells.at(0)->questions[1].document, "needle_1 (seed 2)");
  EXPECT_THAT(t.tables.at(0).documents, ::testing::ElementsAre("needle_1 (seed 1)", "needle_1 (seed 2)"));
}

TEST(Tabulate, SharedStagesAreCountedOncePerDocument) {
  const Tabulated t = tabulate(test_records::make({}));
  const StageCost& quality = t.stages.at(0);
  EXPECT_EQ(quality.n_documents, 2);
  EXPECT_DOUBLE_EQ(quality.prefill_s, 2.5);  // of 2 and 3
  EXPECT_DOUBLE_EQ(quality.queries_s, 3.0);
  EXPECT_DOUBLE_EQ(quality.compaction_s, 8 * 0.5 + (6 * 5 + 2) * 0.25);  // methods once, targets once, tasks never
  EXPECT_DOUBLE_EQ(quality.ask_s, 2 * (6 * 5 + 2) * 0.75);
  EXPECT_DOUBLE_EQ(quality.reference_s, 2.0);
  std::vector<Record> online = test_records::make({});
  for (Record& record : online) record.seconds["drift_s"] = 0.25;
  EXPECT_DOUBLE_EQ(tabulate(online).stages.at(0).reference_s, 2.0 + 2 * (6 * 5 + 2) * 0.25);
}

TEST(Tabulate, ShowsOnlyOptionsThatVaryOrDifferFromDefaults) {
  const auto labels = [](const Json& defaults) {
    std::string text;
    const Tabulated t = tabulate(test_records::make({}), defaults);
    for (const Row& row : t.tables[0].rows) text += row.method_label + ";";
    return text;
  };
  EXPECT_EQ(labels(nullptr),
            "full_cache;attention_matching (bias=nnls);attention_matching "
            "(bias=none);h2o;random_keys;snapkv;streaming_llm;no_context;");
  EXPECT_THAT(labels(Json{{"method", {{"snapkv", {{"window", 32}, {"kernel", 7}}}}}}),
              HasSubstr("snapkv (window=64);"));
}

TEST(Tabulate, ABudgetFromAFileIsNamedByIt) {
  const auto labels = [](const std::vector<Json>& budgets) {
    std::vector<Record> records;
    for (const Json& budget : budgets) {
      for (Record record : test_records::make({})) {
        if (record.cell.at("method").at("name") != "snapkv") continue;
        record.cell["budget"] = budget;
        record.cell_id += stable_hash(budget.dump());
        records.push_back(std::move(record));
      }
    }
    std::set<std::string> all;
    const Json defaults = {{"budget", {{"proportions", {{"cap", 1.0}}}}}};
    for (const Table& table : tabulate(records, defaults).tables) {
      for (const Row& row : table.rows) all.insert(row.method_label);
    }
    return all;
  };
  const auto file = [](const std::string& path) {
    return Json{{"name", "proportions"}, {"file", path}, {"content_hash", path}};
  };
  EXPECT_THAT(labels({file("/a/long/way/to/found.json")}), ::testing::ElementsAre("snapkv + found budgets"));
  EXPECT_THAT(labels({file("here/found.json"), file("there/found.json")}),
              ::testing::ElementsAre("snapkv + here/found budgets", "snapkv + there/found budgets"));
  Json capped = file("found.json");
  capped["cap"] = 0.5;
  EXPECT_THAT(labels({capped}), ::testing::ElementsAre("snapkv + found budgets (cap=0.5)"));
}

TEST(Tabulate, ABudgetIsARowOfItsOwn) {
  std::vector<Record> records = test_records::make({});
  const size_t n = records.size();
  for (size_t i = 0; i < n; ++i) {
    if (records[i].cell.at("method").at("name") != "snapkv") continue;
    Record other = records[i];
    other.cell["budget"] = Json{{"name", "adaptive"}, {"scope", "all"}, {"floor_fraction", 0.2}};
    other.cell_id += "b";
    records.push_back(std::move(other));
  }
  ASSERT_GT(records.size(), n);
  const Json defaults = {{"budget", {{"adaptive", {{"scope", "layer"}, {"floor_fraction", 0.2}}}}}};
  for (const Table& table : tabulate(records, defaults).tables) {
    std::vector<std::string> labels;
    for (const Row& row : table.rows) {
      if (row.method.at("name") == "snapkv") labels.push_back(row.method_label);
    }
    EXPECT_THAT(labels, ::testing::UnorderedElementsAre("snapkv", "snapkv (budget=adaptive(scope=all))"));
  }
}

TEST(Tabulate, CountsFailedAndMissing) {
  std::vector<Record> records = test_records::make({});
  test_records::fail(records[30], "numbers are not finite\n  where: layer 3");
  records[31].answers[0].erase("question_id");
  records.erase(records.begin() + 60);
  const Tabulated t = tabulate(records);
  EXPECT_EQ(t.n_failed, 2);
  EXPECT_EQ(t.n_missing, 1);
  ASSERT_EQ(t.failures.size(), 2u);
  const std::string text = report_terminal(t);
  EXPECT_THAT(text, HasSubstr("(2 failed)"));
  EXPECT_THAT(text, HasSubstr("(1 missing)"));
  EXPECT_THAT(text, HasSubstr("numbers are not finite"));
  EXPECT_THAT(text, HasSubstr("253 done, 2 failed, 1 missing"));
}

TEST(Tabulate, CountsACellWithoutAnyRecordAsMissing) {
  std::vector<Record> records = test_records::make({});
  const auto of_cell = [](const Record& record) {
    return record.cell.at("method").at("name") == "snapkv" && record.cell.at("target") == 0.05 &&
           record.cell.at("task").at("name") == "fidelity";
  };
  const auto gone = std::erase_if(records, of_cell);
  ASSERT_GT(gone, 0U);
  const Tabulated t = tabulate(records);
  EXPECT_EQ(t.n_missing, static_cast<int64_t>(gone));
  EXPECT_THAT(report_terminal(t), HasSubstr("(2 missing)"));
}

TEST(Tabulate, ATargetThatASweepDoesNotAskOfAMethodIsNotMissing) {
  std::vector<Record> records = test_records::make({});
  const auto of_cell = [](const Record& record) {
    return record.cell.at("method").at("name") == "snapkv" && record.cell.at("target") == 0.05;
  };
  const Json method = std::find_if(records.begin(), records.end(), of_cell)->cell.at("method");
  const auto gone = std::erase_if(records, of_cell);
  ASSERT_GT(gone, 0U);
  ComparisonSettings settings;
  settings.targets[canonical_json(method)] = {"0.05"};
  EXPECT_EQ(tabulate(records, Json::object(), settings).n_missing, static_cast<int64_t>(gone));
  settings.targets[canonical_json(method)] = {"0.2", "0.1"};
  const Tabulated t = tabulate(records, Json::object(), settings);
  EXPECT_EQ(t.n_missing, 0);
  EXPECT_THAT(report_terminal(t), Not(HasSubstr("missing")));
}

}  // namespace
}  // namespace kvc
