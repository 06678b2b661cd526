#include "harness/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "harness/core/json_lines.h"
#include "harness/core/stable_hash.h"
#include "harness/report/plot.h"
#include "harness/report/report_tables.h"
#include "harness/report/series_style.h"
#include "harness/report/svg.h"
#include "harness/report/test_records.h"

namespace kvc {
namespace {

using test_records::Shape;
using ::testing::HasSubstr;
using ::testing::Not;

class Folder {
 public:
  explicit Folder(const std::vector<Record>& records) {
    std::string pattern = (std::filesystem::temp_directory_path() / "kvc_report_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
    for (const Record& r : records) append_json_line(path_ + "/" + r.cell_id + ".jsonl", r.to_json());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::string read(const std::string& name) const {
    std::ifstream file(path_ + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::string path_;
};

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

Record one(const std::string& task, const std::string& method, const Json& target, std::vector<Json> answers,
           const std::string& document = "d") {
  Record r;
  r.cell = Json{{"model", {{"name", "m"}}},
                {"dataset", {{"name", "s"}}},
                {"task", {{"name", task}}},
                {"queries", nullptr},
                {"method", {{"name", method}}},
                {"target", target},
                {"seed", 7}};
  r.cell_id = stable_hash(canonical_json(r.cell));
  r.document_id = document;
  r.status = "done";
  r.answers = std::move(answers);
  return r;
}

TEST(Metric, ErrorsNameTheRecord) {
  const Record record = one("likelihood", "x", 0.5, {{{"question_id", "q"}, {"gold_option", 0}}});
  try {
    question_values(record);
    FAIL() << "an answer without its fields was taken";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("record of cell " + record.cell_id + ", document 'd'"));
  }
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

Json match(const std::string& id, bool right) {
  return {{"question_id", id}, {"gold_answer", "7"}, {"text", right ? "7" : "8"}, {"stop_reason", "end"}};
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
  EXPECT_EQ(count(score_lines(t), "\n"), 8u);
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

TEST(Report, WritesTheSameBytesWhateverTheOrder) {
  std::vector<Record> records = test_records::make({});
  const Folder folder(records);
  std::reverse(records.begin(), records.end());
  const Folder other(records);
  write_report(folder.path());
  write_report(other.path());
  for (const char* name : {"report.json", "report.csv", "report.svg"}) {
    EXPECT_GT(folder.read(name).size(), 1000u) << name;
    EXPECT_EQ(folder.read(name), other.read(name)) << name;
  }
  const Json json = Json::parse(folder.read("report.json"));
  EXPECT_EQ(json.at("schema"), "kvcompact.report");
  EXPECT_EQ(json.at("version"), 3);
  EXPECT_EQ(json.at("tables").size(), 4u);
  EXPECT_FALSE(json.at("provenance")[0].contains("started_at"));
  EXPECT_EQ(count(folder.read("report.csv"), "\n"), 1u + 32 * (3 + 2 + 5 + 3));
  EXPECT_THAT(folder.read("report.md"), HasSubstr("![accuracy against kept cache](report.svg)"));
  const std::string before = folder.read("report.md");
  write_report(folder.path() + "/");
  EXPECT_EQ(folder.read("report.md"), before);
}

TEST(Report, TheSweepFileSaysWhatIsComparedWithWhat) {
  Shape shape;
  shape.n_documents = 6;
  const Folder folder(test_records::make(shape));
  std::ofstream(folder.path() + "/config.json") << R"({"compare_to": "h2o", "equivalence": {"kl": 0.3}})";
  write_report(folder.path());
  const Json tables = Json::parse(folder.read("report.json")).at("tables");
  for (const Json& table : tables) {
    const Json& comparison = table.at("comparison");
    EXPECT_EQ(table.at("rows")[comparison.at("reference").get<size_t>()].at("method").at("name"), "h2o");
    EXPECT_EQ(comparison.at("equivalence_margin"), table.at("task").at("name") == "fidelity" ? 0.3 : 0.05);
  }
  EXPECT_THAT(folder.read("report.md"), HasSubstr("### against h2o"));
}

TEST(Report, SharesAndKlStayInTheirRange) {
  const std::regex interval(R"((-?[0-9.]+) \[(-?[0-9.]+), (-?[0-9.]+)\])");
  for (const int n_documents : {2, 6}) {
    Shape shape;
    shape.n_documents = n_documents;
    for (const Table& table : tabulate(test_records::make(shape)).tables) {
      const TextTable text = metric_table(table, 0);
      int seen = 0;
      for (const auto& row : text.rows) {
        for (size_t i = 2; i < row.size(); ++i) {
          std::smatch match;
          if (!std::regex_search(row[i], match, interval)) continue;
          ++seen;
          EXPECT_GE(std::stod(match[2]), 0) << row[i];
          EXPECT_LE(std::stod(match[2]), std::stod(match[1])) << row[i];
          if (table.task.at("name") != "fidelity") {
            EXPECT_LE(std::stod(match[3]), 1) << row[i];
          }
        }
      }
      EXPECT_GT(seen, 20);
    }
  }
}

TEST(Report, TheNewestRecordCounts) {
  Record record = one("exact_match", "h2o", 0.1, {});
  record.status = "failed";
  record.error = "no memory";
  Record again = one("exact_match", "h2o", 0.1, {match("q", true)});
  const Folder folder({record, again});
  write_report(folder.path());
  const Json json = Json::parse(folder.read("report.json"));
  EXPECT_EQ(json.at("tables")[0].at("rows")[0].at("cells")[0].at("metrics").at("accuracy").at("mean"), 1.0);
  EXPECT_TRUE(json.at("failures").empty());
}

TEST(Report, AnEmptyFolderIsAnError) {
  const Folder folder({});
  EXPECT_THROW(write_report(folder.path()), Error);
  EXPECT_THROW(load_report(folder.path() + "/none"), Error);
}

TEST(Plot, HasAPanelPerDatasetAndTaskAndAMarkerPerPoint) {
  const auto plots = plots_of(tabulate(test_records::make({})));
  ASSERT_EQ(plots.size(), 1u);
  EXPECT_EQ(plots[0].second.panels.size(), 4u);
  EXPECT_EQ(plots[0].second.series.size(), 6u);
  const std::string svg = render_svg(plots[0].second);
  EXPECT_EQ(count(svg, "<polyline"), 4u * 6);
  EXPECT_EQ(count(svg, "<circle") + count(svg, "<polygon"), 4u * 6 * 5);  // a marker per point
  EXPECT_EQ(count(svg, ">random_keys<"), 4u);                             // every line is named at its end
  EXPECT_EQ(count(svg, ">full cache<"), 4u);
  EXPECT_EQ(count(svg, ">50x<"), 4u);
  EXPECT_THAT(svg, HasSubstr("over the questions of 2 documents"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(Plot, SpeaksOfDocumentsWhenThereAreEnough) {
  Shape shape;
  shape.n_documents = 6;
  const auto plots = plots_of(tabulate(test_records::make(shape)));
  EXPECT_THAT(plots.at(0).second.notes.at(0), HasSubstr("clustered by document"));
}

TEST(Plot, OneMethodOneDocumentOneTargetAndZeroKl) {
  Shape shape;
  shape.methods.resize(1);
  shape.targets = {0.1};
  shape.n_documents = 1;
  shape.references = false;
  shape.kl_is_zero = true;
  const auto plots = plots_of(tabulate(test_records::make(shape)));
  const std::string svg = render_svg(plots.at(0).second);
  EXPECT_EQ(count(svg, "<polyline"), 0u);
  EXPECT_EQ(count(svg, "<circle") + count(svg, "<polygon"), 4u);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  EXPECT_THAT(svg, Not(HasSubstr(">full cache<")));
}

TEST(Plot, EscapesText) {
  Plot plot;
  plot.title = "a<b & \"c\"";
  plot.series = {{"x", {0, 0}}};
  PlotPanel panel{"t", "y", true};
  panel.lines = {{0, {{0.5, 0.5, {}, {}, true}}}};
  panel.ticks = {0.5};
  plot.panels.push_back(panel);
  EXPECT_THAT(render_svg(plot), HasSubstr("a&lt;b &amp; &quot;c&quot;"));
  EXPECT_THAT(render_svg(plot), HasSubstr("fill=\"#FFFFFF\" stroke=\"#0072B2\""));  // hollow: documents are missing
}

// Every text of an SVG with its left and right end and baseline, by the estimate the drawing itself uses.
struct Placed {
  double left, right, y, size;
  std::string text;
};

std::vector<Placed> texts_of(const std::string& svg) {
  static const std::regex kText(
      "<text x=\"([-0-9.]+)\" y=\"([-0-9.]+)\" font-size=\"([0-9.]+)\" text-anchor=\"(\\w+)\" fill=\"[^\"]+\" "
      "font-weight=\"\\w+\">([^<]*)</text>");
  std::vector<Placed> list;
  for (auto at = std::sregex_iterator(svg.begin(), svg.end(), kText); at != std::sregex_iterator(); ++at) {
    const std::smatch& m = *at;
    const std::string text = std::regex_replace(m[5].str(), std::regex("&[a-z]+;"), "x");
    const double x = std::stod(m[1]), size = std::stod(m[3]), width = 0.85 * svg_text_width(text, size);
    const double left = m[4] == "start" ? x : m[4] == "end" ? x - width : x - width / 2;
    list.push_back({left, left + width, std::stod(m[2]), size, m[5]});
  }
  return list;
}

TEST(Plot, NoTextLiesOnAnotherNorLeavesThePage) {
  for (const int n : {3, 12, 24}) {
    const auto plots = plots_of(tabulate(test_records::make(test_records::many_methods(n, 2))));
    Plot plot = plots.at(0).second;
    plot.panels[0].title =
        "longhealth (patients=[\"patient_03\", \"patient_04\"], notes=1, max_questions=10, shuffle=true), fidelity";
    const std::string svg = render_svg(plot);
    const std::vector<Placed> texts = texts_of(svg);
    ASSERT_GT(texts.size(), 30u);
    for (size_t i = 0; i < texts.size(); ++i) {
      EXPECT_LE(texts[i].right, 681) << texts[i].text;
      for (size_t j = 0; j < i; ++j) {
        const bool beside = texts[i].right <= texts[j].left + 0.5 || texts[j].right <= texts[i].left + 0.5;
        const bool apart = std::abs(texts[i].y - texts[j].y) >= 0.95 * std::min(texts[i].size, texts[j].size);
        EXPECT_TRUE(beside || apart) << texts[i].text << " | " << texts[j].text;
      }
    }
  }
}

TEST(Plot, ColoursAreFewAllDifferentAndStay) {
  const Tabulated many = tabulate(test_records::make(test_records::many_methods(24, 2)));
  std::set<int> colours;
  size_t grey = 0;
  for (const auto& [label, style] : series_styles(many)) {
    if (style.colour < 0) {
      ++grey;
    } else {
      EXPECT_TRUE(colours.insert(style.colour).second) << label;
    }
  }
  EXPECT_EQ(colours.size(), kColoured);
  EXPECT_EQ(grey, 24 - kColoured);
  const auto small = series_styles(tabulate(test_records::make({})));
  Shape fewer;
  fewer.methods = {fewer.methods[2], fewer.methods[3]};
  for (const auto& [label, style] : series_styles(tabulate(test_records::make(fewer)))) {
    if (small.contains(label)) {
      EXPECT_EQ(style.colour, small.at(label).colour) << label;
    }
  }
}

TEST(Plot, KlThatSpansDecadesHasALogAxis) {
  const Tabulated t = tabulate(test_records::make({}));
  for (const auto& panel : plots_of(t).at(0).second.panels) EXPECT_FALSE(panel.share && panel.log_y);
  std::vector<Record> records = test_records::make({});
  for (Record& record : records) {
    if (record.cell.at("target") != 0.5) continue;
    for (Json& answer : record.answers) {
      if (answer.contains("kl_sum")) answer["kl_sum"] = answer.at("kl_sum").get<double>() / 1000;
    }
  }
  const auto spread = plots_of(tabulate(records)).at(0).second;
  size_t n_log = 0;
  for (const auto& panel : spread.panels) n_log += panel.log_y ? 1 : 0;
  EXPECT_EQ(n_log, 2u);
  EXPECT_THAT(render_svg(spread), Not(HasSubstr("nan")));
}

TEST(Plot, ChoosesMetricDataSetAxisAndMethods) {
  const Tabulated t = tabulate(test_records::make({}));
  PlotChoice choice;
  choice.metric = "top_agreement";
  choice.dataset = "needle";
  choice.x = PlotAxis::kBytes;
  choice.methods = {"snapkv", "h2o"};
  const auto plots = plots_of(t, choice);
  ASSERT_EQ(plots.size(), 1u);
  ASSERT_EQ(plots[0].second.panels.size(), 1u);
  EXPECT_EQ(plots[0].second.panels[0].lines.size(), 2u);
  for (const PlotSeries& one : plots[0].second.series) EXPECT_GE(one.style.colour, 0);
  EXPECT_THAT(render_svg(plots[0].second), HasSubstr("MiB"));
  choice.dataset = "none";
  EXPECT_TRUE(plots_of(t, choice).empty());
}

}  // namespace
}  // namespace kvc
