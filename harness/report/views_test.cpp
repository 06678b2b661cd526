// What people and programs take from a report: the page, the printed text, tables, comparisons and exports.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <sstream>

#include "harness/report/conclusions.h"
#include "harness/report/html_report.h"
#include "harness/report/question_export.h"
#include "harness/report/report.h"
#include "harness/report/run_comparison.h"
#include "harness/report/short_names.h"
#include "harness/report/test_records.h"
#include "harness/report/value_table.h"
#include "harness/testing/checks.h"

namespace kvc {
namespace {

using test_records::Shape;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

LoadedReport loaded(const std::vector<Record>& records, const std::string& name = "x") {
  return {name, tabulate(records), AnswerTexts(records)};
}

template <class... Reports>
std::vector<LoadedReport> folders(Reports... reports) {  // they are moved, which an initializer list cannot do
  std::vector<LoadedReport> list;
  (list.push_back(std::move(reports)), ...);
  return list;
}

std::string unpacked(const std::string& base64) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string packed;
  std::uint32_t group = 0;
  int n = 0;
  for (const char c : base64) {
    if (c == '=') break;
    group = group << 6U | static_cast<std::uint32_t>(digits.find(c));
    if ((n += 6) >= 8) packed += static_cast<char>(group >> (n -= 8) & 255U);
  }
  std::string text(1 << 22, '\0');
  uLongf length = text.size();
  EXPECT_EQ(uncompress(reinterpret_cast<Bytef*>(text.data()), &length, reinterpret_cast<const Bytef*>(packed.data()),
                       packed.size()),
            Z_OK);
  text.resize(length);
  return text;
}

std::string element(const std::string& page, const std::string& id) {
  const size_t at = page.find(" id=\"" + id + "\">");
  if (at == std::string::npos) return "";
  const size_t begin = page.find('>', at) + 1;
  return page.substr(begin, page.find("</script>", begin) - begin);
}

TEST(Html, HoldsEveryAnswerAndNothingFromElsewhere) {
  const LoadedReport report = loaded(test_records::make({}));
  const std::string page = render_html(report.tabulated, report.texts, {"x", "n", {"line"}, nullptr, nullptr});
  const Json data = Json::parse(element(page, "data"));
  ASSERT_EQ(data.at("tables").size(), 4u);
  EXPECT_EQ(data.at("styles").size(), 6u);
  for (size_t t = 0; t < 4; ++t) {
    const Json& table = data.at("tables")[t];
    const Json& questions = table.at("questions");
    ASSERT_EQ(questions.at("values").size(), table.at("rows").size());
    for (size_t r = 0; r < table.at("rows").size(); ++r) {
      const Json& cells = table.at("rows")[r].at("cells");
      ASSERT_EQ(questions.at("values")[r].size(), cells.size());
      for (size_t c = 0; c < cells.size(); ++c)
        EXPECT_EQ(questions.at("values")[r][c].size(),
                  questions.at("values")[r][c].is_string() ? 1u : questions.at("id").size());
    }
    for (size_t d = 0; d < questions.at("documents").size(); ++d) {
      const Json block = Json::parse(unpacked(element(page, fmt::format("block-{}-{}", t, d))));
      size_t n_questions = 0;
      for (const Json& document : questions.at("doc")) n_questions += document == d ? 1 : 0;
      EXPECT_EQ(block.at("questions").size(), n_questions);
      for (const auto& [cell, answers] : block.at("answers").items()) EXPECT_EQ(answers.size(), n_questions) << cell;
    }
  }
  std::string plain = page;
  for (const char* known : {"http://www.w3.org/2000/svg"}) {
    for (size_t at; (at = plain.find(known)) != std::string::npos;) plain.erase(at, std::string(known).size());
  }
  EXPECT_THAT(plain, Not(HasSubstr("http:")));
  EXPECT_THAT(plain, Not(HasSubstr("https:")));
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
}

TEST(Html, WithoutDataItIsSmall) {
  const std::string page = render_html({}, {}, {});
  EXPECT_LT(page.size(), 300'000u);
}

TEST(Html, HostileTextStaysText) {
  const std::string hostile = "</script><script>alert(1)</script>\xff\xE2\x80\xAE <b>\"'";
  std::vector<Record> records = test_records::make({});
  for (Record& record : records) {
    for (Json& answer : record.answers) {
      answer["prompt"] = hostile;
      answer["question_id"] = hostile + answer.at("question_id").get<std::string>();
      if (answer.contains("text")) answer["text"] = hostile;
    }
  }
  test_records::fail(records[3], hostile);
  const LoadedReport report = loaded(records, hostile);
  const std::string page = render_html(report.tabulated, report.texts, {hostile, hostile, {hostile}, nullptr, hostile});
  const std::string clean = render_html({}, {}, {});
  EXPECT_EQ(occurrences(page, "<script>"), occurrences(clean, "<script>"));
  EXPECT_EQ(occurrences(page, "<b>"), occurrences(clean, "<b>"));
  const Json data = Json::parse(element(page, "data"));
  EXPECT_THAT(data.at("failures")[0].at("error").get<std::string>(), HasSubstr("</script>"));
}

TEST(Html, AnswersOfSeveralSeedsStandSideBySide) {
  Shape shape;
  shape.needle = false;
  std::vector<Record> records = test_records::make(shape);
  const size_t n = records.size();
  for (size_t i = 0; i < n; ++i) {
    Record other = records[i];
    other.cell["seed"] = 8;
    other.cell_id += "b";
    records.push_back(other);
  }
  const LoadedReport report = loaded(records);
  const Json data = Json::parse(element(render_html(report.tabulated, report.texts, {}), "data"));
  const Json& questions = data.at("tables")[0].at("questions");
  EXPECT_EQ(questions.at("id").size(), 2u * 27);
  EXPECT_EQ(questions.at("seed").size(), 2u * 27);
}

TEST(Terminal, ASweepOf234RecordsFitsTwoScreens) {
  Shape shape = test_records::many_methods(7, 2);  // (7 x 5 + 2) x 3 tasks x 2 documents, and more
  const std::vector<Record> records = test_records::make(shape);
  ASSERT_GE(records.size(), 234u);
  const std::string text = report_terminal(tabulate(records), 80);
  EXPECT_LE(occurrences(text, "\n"), 96u) << text;
}

TEST(Conclusions, SayWhatIsDecidedAndWhatIsNot) {
  const auto lines = conclusions(tabulate(test_records::make({})));
  ASSERT_EQ(lines.size(), 4u);
  for (const std::string& line : lines) {
    EXPECT_THAT(line, HasSubstr(" at "));
    EXPECT_TRUE(line.find("decided") != std::string::npos || line.find("decidedly") != std::string::npos) << line;
  }
  EXPECT_EQ(conclusions(tabulate(test_records::make({})), 2).size(), 3u);
}

// What a rule left early was measured on other documents than the rest: it is neither the best nor counted.
TEST(Conclusions, RankNothingThatARuleLeftEarly) {
  Shape shape;
  shape.n_documents = 12;
  Tabulated tabulated = tabulate(test_records::make(shape));
  for (Table& table : tabulated.tables) {
    for (Row& row : table.rows) {
      if (row.label().find("attention_matching") == std::string::npos) continue;
      for (auto& cell : row.cells) {
        if (cell) cell->stopped = {{"state", "halved"}};
      }
    }
  }
  for (const std::string& line : conclusions(tabulated))
    EXPECT_EQ(line.find("attention_matching"), std::string::npos) << line;
}

// KL is better when lower: the method that loses least must be the one that wins.
TEST(Conclusions, KnowThatLowerKlIsBetter) {
  Shape shape;
  shape.n_documents = 12;
  for (const std::string& line : conclusions(tabulate(test_records::make(shape)))) {
    if (line.find("fidelity") == std::string::npos) continue;
    EXPECT_THAT(line, HasSubstr("attention_matching"));
    EXPECT_THAT(line, HasSubstr("decidedly better than"));
  }
}

TEST(ShortNames, NumberWhatDoesNotFitAndSayWhatItIs) {
  const ShortNames names =
      short_names({"snapkv", "kvzip (budget=adaptive(scope=all)), repeat_prefill",
                   "kvzip (budget=uniform(scope=none)), repeat_prefill", "expected_attention, context_prefill"},
                  20);
  EXPECT_EQ(names.of("snapkv"), "snapkv");
  EXPECT_EQ(names.of("kvzip (budget=adaptive(scope=all)), repeat_prefill"), "kvzip [1]");
  EXPECT_EQ(names.of("kvzip (budget=uniform(scope=none)), repeat_prefill"), "kvzip [2]");
  EXPECT_EQ(names.of("expected_attention, context_prefill"), "expected_attention");
  EXPECT_EQ(names.notes.size(), 2u);
}

TEST(ValueTable, EveryFormatHasEveryCell) {
  const std::vector<LoadedReport> one = folders(loaded(test_records::make({})));
  ValueTableOptions options;
  options.dataset = "needle";
  options.task = "exact_match";
  const std::string markdown = value_table(one, options);
  EXPECT_EQ(occurrences(markdown, "\n|"), 1u + 8);
  for (size_t begin = 0, end; (end = markdown.find('\n', begin)) != std::string::npos; begin = end + 1)
    EXPECT_LE(markdown[begin] == '|' ? text_width(markdown.substr(begin, end - begin)) : 0, 80u);
  options.format = "csv";
  const std::string csv = value_table(one, options);
  EXPECT_EQ(occurrences(csv, "\n"), 1u + 8);
  EXPECT_EQ(occurrences(csv.substr(0, csv.find('\n')), ","), 3u * 5);
  options.format = "tsv";
  EXPECT_EQ(occurrences(value_table(one, options), "\n"), 1u + 8);
  options.format = "json";
  EXPECT_EQ(Json::parse(value_table(one, options)).size(), 8u * 5);
  options.format = "latex";
  options.best = true;
  const std::string latex = value_table(one, options);
  EXPECT_THAT(latex, HasSubstr("\\toprule"));
  EXPECT_THAT(latex, HasSubstr("\\textbf{"));
  EXPECT_THAT(latex, HasSubstr("attention\\_matching"));
  EXPECT_EQ(occurrences(latex, "\\\\\n"), 1u + 8);
  options.transpose = true;
  EXPECT_EQ(occurrences(value_table(one, options), "\\\\\n"), 1u + 5);
}

TEST(ValueTable, FoldersAreRowsOrColumns) {
  const std::vector<LoadedReport> two =
      folders(loaded(test_records::make({}), "first"), loaded(test_records::make({}), "second"));
  ValueTableOptions options;
  options.dataset = "quality";
  options.task = "fidelity";
  options.format = "csv";
  options.sort = true;
  EXPECT_EQ(occurrences(value_table(two, options), "\nfirst,"), 8u);
  EXPECT_EQ(value_table(two, options).rfind("folder,method,0.5,0.5 low,0.5 high,", 0), 0u);
  options.columns = "folder";
  EXPECT_THAT(value_table(two, options), HasSubstr(",first,first low,first high,second"));
  options.columns = "method";
  EXPECT_THROW(value_table(two, options), Error);
  options.columns = "targets";
  EXPECT_THROW(value_table(two, options), Error);
  options.columns = "target";
  options.metric = "kll";
  EXPECT_THROW(value_table(two, options), Error);
}

// Several data sets and tasks: each in a column of its own, by its plain name; the best first within each.
TEST(ValueTable, WhatElseVariesHasItsOwnColumns) {
  ValueTableOptions options;
  options.sort = true;
  options.best = true;
  const std::string text = value_table(folders(loaded(test_records::make({}))), options);
  EXPECT_THAT(text, HasSubstr("| dataset | task | metric | method |"));
  EXPECT_THAT(text, HasSubstr("| needle | exact_match | accuracy | full_cache |"));
  std::vector<std::string> groups;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("| needle", 0) != 0 && line.rfind("| quality", 0) != 0) continue;
    const std::string group = line.substr(0, 20);
    if (groups.empty() || groups.back() != group) groups.push_back(group);
  }
  EXPECT_EQ(groups.size(), 4u);  // no group is torn apart
}

TEST(CompareRuns, TheSameRunHasNoChange) {
  const Tabulated t = tabulate(test_records::make({}));
  const RunComparison same = compare_runs(t, t);
  EXPECT_EQ(same.cells.size(), 4u * 32);
  for (const CellChange& cell : same.cells) {
    EXPECT_EQ(cell.better, 0);
    EXPECT_EQ(cell.pair.wins + cell.pair.losses, 0);
  }
  EXPECT_TRUE(worse_cells(same, 0).empty());
  EXPECT_TRUE(same.settings.empty());
}

TEST(CompareRuns, FindsWhatGotWorseAndWhichSettingChanged) {
  Shape shape;
  shape.n_documents = 8;
  const std::vector<Record> before = test_records::make(shape);
  std::vector<Record> after = before;
  for (Record& record : after) {
    record.provenance["threads"] = 1;
    const Json& method = record.cell.at("method").at("name");
    if (method != "snapkv" || record.cell.at("target") != 0.5) continue;
    for (Json& answer : record.answers) {
      if (answer.contains("kl_sum")) answer["kl_sum"] = answer.at("kl_sum").get<double>() + 8;  // half a nat a token
    }
  }
  const RunComparison changed = compare_runs(tabulate(before), tabulate(after));
  const auto worse = worse_cells(changed, 0.01);
  ASSERT_EQ(worse.size(), 2u);  // both data sets
  EXPECT_EQ(worse[0]->metric.name, "kl");
  EXPECT_THAT(worse[0]->method, HasSubstr("snapkv"));
  EXPECT_NEAR(worse[0]->after - worse[0]->before, 0.5, 1e-9);
  EXPECT_THAT(changed.settings, ElementsAre("threads: 2 -> 1"));
  const RunComparison mended = compare_runs(tabulate(after), tabulate(before));
  EXPECT_TRUE(worse_cells(mended, 0).empty());
  EXPECT_EQ(std::count_if(mended.cells.begin(), mended.cells.end(), [](const CellChange& c) { return c.better > 0; }),
            2);
  EXPECT_TRUE(worse_cells(changed, 1e6).empty());
  const std::string text = comparison_text(changed, "a", "b", 80);
  EXPECT_THAT(text, HasSubstr("2 decidedly worse"));
  EXPECT_THAT(text, HasSubstr("threads: 2 -> 1"));
  EXPECT_THAT(text, HasSubstr("WORSE"));
  EXPECT_EQ(occurrences(text, "\nmethod "), occurrences(text, "+/-/=  "));  // no table is in two pieces
}

TEST(CompareRuns, CellsOfOneRunAloneAreNamed) {
  std::vector<Record> records = test_records::make({});
  const Tabulated whole = tabulate(records);
  std::erase_if(records, [](const Record& r) { return r.cell.at("method").at("name") == "h2o"; });
  const RunComparison comparison = compare_runs(whole, tabulate(records));
  EXPECT_EQ(comparison.only_in_first.size(), 4u * 5);
  EXPECT_THAT(comparison.only_in_first[0], HasSubstr("h2o"));
  EXPECT_TRUE(comparison.only_in_second.empty());
}

// Needles depend on the seed; questions of a text do not.
std::vector<Record> under_seeds(const std::vector<int>& seeds, double kept_right) {
  std::vector<Record> records;
  for (const int seed : seeds) {
    for (int document = 0; document < 6; ++document) {
      for (const char* name : {"needle", "text"}) {
        Record record = test_records::one("exact_match", "h2o", 0.1, {}, fmt::format("{}-{}", name, document));
        record.cell["seed"] = seed;
        record.cell_id = stable_hash(canonical_json(record.cell));
        for (int question = 0; question < 8; ++question) {
          Json answer = test_records::match(fmt::format("q{}", question), question < 8 * kept_right);
          if (*name == 'n') answer["gold_answer"] = std::to_string(7 + seed * 100);
          if (*name == 'n' && question < 8 * kept_right) answer["text"] = answer["gold_answer"];
          record.answers.push_back(answer);
        }
        records.push_back(record);
      }
    }
  }
  return records;
}

TEST(CompareRuns, QuestionsArePairedOverSeedsAsTheTablesDo) {
  const auto questions = [](const CellChange& change) {
    return change.pair.wins + change.pair.losses + change.pair.ties;
  };
  const Tabulated one_seed = tabulate(under_seeds({7}, 1)), two_seeds = tabulate(under_seeds({7, 8}, 0.5));
  for (const bool turned : {false, true}) {
    const RunComparison both = turned ? compare_runs(two_seeds, one_seed) : compare_runs(one_seed, two_seeds);
    ASSERT_EQ(both.cells.size(), 1u);
    EXPECT_EQ(questions(both.cells[0]), 6 * 8 * 2);  // the needles of seed 7, and the texts
    EXPECT_EQ(turned ? both.cells[0].after : both.cells[0].before, 1);
    EXPECT_EQ(turned ? both.cells[0].before : both.cells[0].after, 0.5);
    EXPECT_EQ(both.asked_otherwise, 0);
  }
  // Of two runs with one seed each nothing says which documents depend on it, but for their right answers.
  const RunComparison other = compare_runs(one_seed, tabulate(under_seeds({8}, 1)));
  ASSERT_EQ(other.cells.size(), 1u);
  EXPECT_EQ(questions(other.cells[0]), 6 * 8);
  EXPECT_EQ(other.asked_otherwise, 6 * 8);
  EXPECT_THAT(comparison_text(other, "a", "b", 80), HasSubstr("48 answers are not compared"));
}

TEST(Export, SeedsAreRowsOfTheirOwn) {
  std::vector<Record> records = under_seeds({7, 8}, 0.5);
  for (Record& record : records) record.answers[0]["text"] = "seed " + record.cell.at("seed").dump();
  const LoadedReport report = loaded(records);
  const std::string lines = questions_jsonl(report);
  ASSERT_EQ(occurrences(lines, "\n"), 2u * 6 * 2 * 8);
  std::istringstream text(lines);
  for (std::string line; std::getline(text, line);) {
    const Json row = Json::parse(line);
    if (row.at("question_id") == "q0") {
      EXPECT_EQ(row.at("answer"), "seed " + row.at("seed").dump());
    }
  }
  const std::string csv = questions_csv(report);
  EXPECT_EQ(occurrences(csv, ",seed 7,"), 12u);
  EXPECT_EQ(occurrences(csv, ",seed 8,"), 12u);
}

TEST(Export, OneRowAQuestion) {
  std::vector<Record> records = test_records::make({});
  records[0].answers[0]["prompt"] = "a \"quoted\", and\nbroken line";
  size_t n = 0;
  for (const Record& record : records) n += record.answers.size();
  const LoadedReport report = loaded(records);
  const std::string lines = questions_jsonl(report);
  ASSERT_EQ(occurrences(lines, "\n"), n);
  const Json first = Json::parse(lines.substr(0, lines.find('\n')));
  for (const char* name : {"model", "dataset", "task", "method", "seed", "document_id", "question_id", "values"})
    EXPECT_TRUE(first.contains(name)) << name;
  EXPECT_THAT(lines, HasSubstr("The secret code is 4821."));
  const std::string csv = questions_csv(report);
  EXPECT_EQ(occurrences(csv, "\n"), n + 1 + 1);  // one line feed stands in a quoted field
  EXPECT_THAT(csv, HasSubstr("\"a \"\"quoted\"\", and\nbroken line\""));
}

}  // namespace
}  // namespace kvc
