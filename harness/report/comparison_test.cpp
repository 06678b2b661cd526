#include "harness/report/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/report/report.h"
#include "harness/report/report_tables.h"
#include "harness/report/test_records.h"

namespace kvc {
namespace {

using test_records::Shape;
using ::testing::HasSubstr;
using ::testing::Not;

// A record of exact_match whose answers are right where `right` is true; documents of `per_document` questions.
std::vector<Record> answered(const std::string& method, const Json& target, const std::vector<bool>& right,
                             size_t per_document = 100) {
  std::vector<Record> records;
  for (size_t i = 0; i < right.size(); ++i) {
    if (i % per_document == 0) {
      Record r;
      r.cell = Json{{"model", {{"name", "m"}}},
                    {"dataset", {{"name", "s"}}},
                    {"task", {{"name", "exact_match"}}},
                    {"queries", nullptr},
                    {"method", {{"name", method}}},
                    {"target", target},
                    {"seed", 7}};
      r.cell_id = stable_hash(canonical_json(r.cell));
      r.document_id = "d" + std::to_string(100 + i / per_document);
      r.status = "done";
      r.sizes = Json{{"kept_fraction", target.is_number() ? target : Json(0.1)}, {"compactable_tokens", 100}};
      records.push_back(std::move(r));
    }
    records.back().answers.push_back(Json{{"question_id", "q" + std::to_string(i)},
                                          {"gold_answer", "7"},
                                          {"text", right[i] ? "7" : "8"},
                                          {"stop_reason", i % 4 == 0 ? "length" : "end"}});
  }
  return records;
}

std::vector<bool> first(size_t right, size_t of) {
  std::vector<bool> list(of, false);
  std::fill(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(right), true);
  return list;
}

Tabulated tabulated(const std::vector<std::vector<Record>>& parts) {
  std::vector<Record> records;
  for (const auto& part : parts) records.insert(records.end(), part.begin(), part.end());
  return tabulate(std::move(records));
}

TEST(Comparison, CountsWinsLossesAndTiesByQuestion) {
  const Tabulated t = tabulated({answered("a", 0.1, {true, true, false, true, true, false}),
                                 answered("b", 0.1, {true, false, true, false, false, false})});
  const Comparison& comparison = t.tables.at(0).comparison;
  ASSERT_EQ(comparison.pairs.size(), 1u);  // one target has no area
  const PairSummary& pair = comparison.pairs[0];
  EXPECT_EQ(pair.pair.wins, 3);
  EXPECT_EQ(pair.pair.losses, 1);
  EXPECT_EQ(pair.pair.ties, 2);
  EXPECT_DOUBLE_EQ(*pair.pair.p_mcnemar, 2.0 * 5 / 16);
  EXPECT_EQ(pair.better, 0);
  EXPECT_EQ(comparison.n_hypotheses, 1);
}

// A summary of free length keeps what it keeps: here 0.1, the nearest of 0.5, 0.12 and 0.02.
TEST(Comparison, AMethodWithoutATargetStandsAtTheNearest) {
  const Tabulated t =
      tabulated({answered("a", 0.5, first(5, 6)), answered("a", 0.12, first(4, 6)), answered("a", 0.02, first(1, 6)),
                 answered("summarize", nullptr, first(6, 6)), answered("full_cache", nullptr, first(6, 6)),
                 answered("no_context", nullptr, first(0, 6))});
  const Table& table = t.tables.at(0);
  ASSERT_EQ(table.comparison.pairs.size(), 1u);  // ceiling and floor are no contestants
  const PairSummary& pair = table.comparison.pairs[0];
  EXPECT_EQ(table.targets.at(*pair.target), 0.12);
  EXPECT_EQ(table.rows.at(pair.first).label(), "a");
  EXPECT_EQ(table.rows.at(pair.second).label(), "summarize");
  EXPECT_EQ(pair.pair.losses, 2);
  EXPECT_TRUE(table.comparison.ranks.at(pair.second).at(*pair.target));
  EXPECT_FALSE(table.comparison.ranks.at(pair.second).at(0));
  const Json kept = report_json(t).at("tables")[0].at("comparison").at("pairs")[0].at("kept_fractions");
  EXPECT_NEAR(kept[0].get<double>(), 0.12, 1e-9);
  EXPECT_NEAR(kept[1].get<double>(), 0.1, 1e-9);
  EXPECT_THAT(report_markdown(t, "x"), HasSubstr("best mean"));
  EXPECT_THAT(report_pairs_csv(t), HasSubstr("summarize"));
}

// Solved twice, once right: a half is no answer that McNemar's test could count, with or without a target.
TEST(Comparison, MeansOfSeveralSamplesOfAMethodWithoutATargetAreNotCountedAsAnswers) {
  const auto solved = [](const std::string& method, const Json& target, const std::vector<std::string>& texts) {
    std::vector<Record> records = answered(method, target, first(4, 4));
    records[0].cell["task"]["name"] = "reasoning";
    for (Json& answer : records[0].answers) {
      answer["samples"] = Json::array();
      for (const std::string& text : texts) {
        answer["samples"].push_back({{"text", text},
                                     {"stop_reason", "end"},
                                     {"forced", false},
                                     {"thought_tokens", 9},
                                     {"compactions", Json::array()}});
      }
      answer["limit"] = 256;
    }
    return records;
  };
  const auto pair = [&](const std::vector<std::string>& texts) {
    return tabulated({solved("a", 0.1, {"It is 8."}), solved("summarize", nullptr, texts)})
        .tables.at(0)
        .comparison.pairs.at(0)
        .pair;
  };
  EXPECT_TRUE(pair({"It is 7."}).p_mcnemar.has_value());
  EXPECT_FALSE(pair({"It is 7.", "It is 8."}).p_mcnemar.has_value());
}

TEST(Comparison, OnlySharedQuestionsAreCompared) {
  std::vector<Record> shorter = answered("b", 0.1, {true, true, true});
  const Tabulated t = tabulated({answered("a", 0.1, first(0, 6)), shorter});
  const Pair& pair = t.tables.at(0).comparison.pairs.at(0).pair;
  EXPECT_EQ(pair.difference.n_questions, 3);
  EXPECT_EQ(pair.losses, 3);
  const TextTable table = metric_table(t.tables[0], 0);
  EXPECT_THAT(table.rows[1][2], HasSubstr("(n=3)"));
  EXPECT_THAT(table.rows[0][2], Not(HasSubstr("n=")));
}

TEST(Comparison, HolmIsOverAllTargetsAndRanksKeepUndecidedPairsTied) {
  // At 0.1 a beats c by 12 questions, b lies between; at 0.05 all are alike.
  const std::vector<std::vector<Record>> parts = {answered("a", 0.1, first(14, 20)), answered("b", 0.1, first(8, 20)),
                                                  answered("c", 0.1, first(2, 20)),  answered("a", 0.05, first(2, 20)),
                                                  answered("b", 0.05, first(2, 20)), answered("c", 0.05, first(2, 20))};
  const Tabulated t = tabulated(parts);
  const Comparison& comparison = t.tables.at(0).comparison;
  EXPECT_EQ(comparison.n_hypotheses, 6);
  EXPECT_EQ(comparison.n_area_hypotheses, 3);
  ASSERT_EQ(comparison.pairs.size(), 9u);
  // By hand: p = 2/2^12 times 6, 2/2^6 times 5, the same.
  EXPECT_DOUBLE_EQ(comparison.pairs[1].p_holm, 6 * 2.0 / 4096);
  EXPECT_DOUBLE_EQ(comparison.pairs[0].p_holm, 5 * 2.0 / 64);
  EXPECT_EQ(comparison.pairs[1].better, 1);
  EXPECT_EQ(comparison.pairs[0].better, 0);
  const auto range = [&](size_t row, size_t place) {
    return std::pair(comparison.ranks[row][place]->best, comparison.ranks[row][place]->worst);
  };
  EXPECT_EQ(range(0, 0), std::pair(int64_t{1}, int64_t{2}));
  EXPECT_EQ(range(1, 0), std::pair(int64_t{1}, int64_t{3}));
  EXPECT_EQ(range(2, 0), std::pair(int64_t{2}, int64_t{3}));
  EXPECT_EQ(range(0, 1), std::pair(int64_t{1}, int64_t{3}));
  EXPECT_DOUBLE_EQ(comparison.areas[0]->mean, (0.7 + 0.1) / 2);
  const TextTable ranks = rank_table(t.tables[0]);
  EXPECT_EQ(ranks.rows[0][2], "1–2");
  EXPECT_EQ(ranks.rows[0][3], "1–3");
  const TextTable best = versus_best_table(t.tables[0]);
  EXPECT_EQ(best.rows[0][2], "best mean");
  EXPECT_EQ(best.rows[2][2], "-0.600 (0/12/8) p=0.003 *");
  EXPECT_EQ(best.rows[1][2], "-0.300 (0/6/14) p=0.16");
}

TEST(Comparison, LowerIsBetterForKl) {
  const Tabulated t = tabulate(test_records::make({}));
  const auto fidelity = std::find_if(t.tables.begin(), t.tables.end(),
                                     [](const Table& table) { return table.task.at("name") == "fidelity"; });
  const Comparison& comparison = fidelity->comparison;
  for (const PairSummary& pair : comparison.pairs) {
    EXPECT_FALSE(pair.pair.p_mcnemar.has_value());
    EXPECT_TRUE(pair.better == 0 || (pair.better > 0) == (pair.pair.difference.mean < 0));
  }
  EXPECT_EQ(comparison.pairs.size(), 15u * 6);  // 6 methods, 5 targets and the area
  // The synthetic methods lose more the further down the list, random keys most.
  const auto row_of = [&](const std::string& label) {
    size_t row = 0;
    while (fidelity->rows.at(row).method_label != label) ++row;
    return row;
  };
  EXPECT_EQ(comparison.ranks[row_of("random_keys")][4]->worst, 6);
  EXPECT_EQ(comparison.ranks[row_of("attention_matching (bias=nnls)")][4]->best, 1);
  EXPECT_FALSE(comparison.ranks[0][0].has_value());  // the full cache is no contestant
}

TEST(Comparison, AreasNeedEveryTarget) {
  const Tabulated t = tabulated(
      {answered("a", 0.1, first(5, 10)), answered("a", 0.05, first(3, 10)), answered("b", 0.1, first(5, 10))});
  EXPECT_TRUE(t.tables.at(0).comparison.areas[0].has_value());
  EXPECT_FALSE(t.tables.at(0).comparison.areas[1].has_value());
  EXPECT_THAT(rank_table(t.tables[0]).rows[1][4], kNoValue);
}

TEST(Comparison, AnswersCutOffAndUnreadStandInColumnsOfTheirOwn) {
  const Tabulated t = tabulated({answered("a", 0.1, first(5, 10)), answered("full_cache", nullptr, first(8, 8))});
  const TextTable answers = answers_table(t.tables.at(0));
  EXPECT_EQ(answers.header, (std::vector<std::string>{"method", "queries", "0.1: cut off"}));
  EXPECT_EQ(answers.rows[0][2], "25.0 %");
  EXPECT_EQ(answers.rows[1][2], "30.0 %");
  EXPECT_TRUE(answers_table(tabulate(test_records::make({})).tables[1]).rows.empty());  // likelihood writes nothing
}

TEST(Comparison, RetainedIntervalsAreByDocumentWhereThereAreEnough) {
  std::vector<bool> method(60), full(60), floor(60);
  for (size_t i = 0; i < 60; ++i) {
    full[i] = i % 5 != 0;
    floor[i] = i % 7 == 0;
    method[i] = i % 3 != 0;
  }
  for (const size_t per_document : {size_t{6}, size_t{30}}) {
    const Tabulated t =
        tabulated({answered("full_cache", nullptr, full, per_document),
                   answered("no_context", nullptr, floor, per_document), answered("a", 0.1, method, per_document)});
    const TextTable table = retained_table(t.tables.at(0), 0);
    ASSERT_EQ(table.rows.size(), 1u);
    EXPECT_THAT(table.rows[0][2], HasSubstr("["));
    EXPECT_EQ(table.rows[0][2].find(" q") != std::string::npos, per_document == 30) << table.rows[0][2];
    EXPECT_EQ(retained_note(t.tables[0], 0).find("fewer than 5") != std::string::npos, per_document == 30);
  }
}

TEST(Comparison, TwentyMethodsAtFiveTargetsFitATerminal) {
  const Tabulated t = tabulate(test_records::make(test_records::many_methods(20, 2)));
  for (const size_t width : {size_t{80}, size_t{120}}) {
    const std::string text = report_terminal(t, width);
    size_t begin = 0;
    for (size_t end = text.find('\n'); end != std::string::npos; begin = end + 1, end = text.find('\n', begin)) {
      const std::string line = text.substr(begin, end - begin);
      const auto points = std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; });
      ASSERT_LE(static_cast<size_t>(points), width) << line;
    }
    for (const char* target : {"0.5", "0.2", "0.1", "0.05", "0.02"}) EXPECT_THAT(text, HasSubstr(target));
  }
  EXPECT_THAT(report_markdown(t, "x"), HasSubstr("of 950 pairs are decided"));
}

TEST(Comparison, TablesAreSplitByColumnsAndLabelsWrapped) {
  const TextTable table{{"name", "first", "second"}, {{"a long label", "1", "22"}, {"b", "–", "4"}}};
  EXPECT_EQ(terminal_table(table, 1, 100),
            "name          first  second\n───────────────────────────\na long label      1      22\nb                 "
            "–       "
            "4\n");
  EXPECT_EQ(terminal_table(table, 1, 20),
            "name         first\n──────────────────\na long           1\nlabel\nb                –\n\n"
            "name         second\n───────────────────\na long           22\nlabel\nb                 4\n");
  EXPECT_EQ(wrapped_text("one two  three äöüäöü", 8), "one two\nthree\näöüäöü");
  EXPECT_EQ(wrapped_text("unbreakable", 4), "unbr\neaka\nble");
}

TEST(Comparison, ScoresEveryStoredAnswerAnew) {
  const Tabulated t = tabulated({answered("a", 0.1, {true, false})});
  const std::string lines = score_lines(t);
  const Json line = Json::parse(lines.substr(0, lines.find('\n')));
  EXPECT_EQ(line.at("document_id"), "d100");
  EXPECT_EQ(line.at("question_id"), "q0");
  EXPECT_EQ(line.at("target"), 0.1);
  EXPECT_EQ(line.at("values").at("accuracy"), 1.0);
  EXPECT_EQ(line.at("values").at("length_limit_rate"), 1.0);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2);
}

TEST(Comparison, PairsAreWrittenForPrograms) {
  const Tabulated t = tabulate(test_records::make({}));
  const std::string csv = report_pairs_csv(t);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 1 + 4 * 15 * 6);
  const Json json = report_json(t);
  const Json& comparison = json.at("tables")[1].at("comparison");
  EXPECT_EQ(comparison.at("metric"), "accuracy");
  EXPECT_EQ(comparison.at("pairs").size(), 90u);
  EXPECT_EQ(comparison.at("pairs")[0].at("target"), 0.5);
  EXPECT_EQ(comparison.at("pairs")[89].at("target"), "area");
  EXPECT_EQ(comparison.at("ranks").size(), json.at("tables")[1].at("rows").size());
  const Json& cell = json.at("tables")[1].at("rows")[1].at("cells")[0].at("metrics").at("accuracy");
  EXPECT_TRUE(cell.at("retained").contains("interval_by_question"));
}

}  // namespace
}  // namespace kvc
