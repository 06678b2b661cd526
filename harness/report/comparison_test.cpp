#include "harness/report/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "harness/core/stable_hash.h"
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

// Compacted knowing the questions: in the table and marked, in no test, no rank and no sentence.
TEST(Comparison, WhatKnewTheQuestionsIsShownAndNotRanked) {
  std::vector<Record> knowing = answered("snapkv", 0.1, first(10, 10));
  for (Record& r : knowing) {
    r.cell["queries"] = Json{{"name", "question"}};
    r.cell_id = stable_hash(canonical_json(r.cell));
    r.notes = Json{{"question_aware", 1}};
  }
  const Tabulated t = tabulated({knowing, answered("full_cache", nullptr, first(10, 10)),
                                 answered("a", 0.1, first(6, 10)), answered("b", 0.1, first(3, 10))});
  const Table& table = t.tables.at(0);
  size_t marked = table.rows.size();
  for (size_t i = 0; i < table.rows.size(); ++i) {
    if (table.rows[i].question_aware) marked = i;
  }
  ASSERT_EQ(marked, table.rows.size() - 1);  // behind all others
  EXPECT_FALSE(table.rows[marked].ranked());
  EXPECT_EQ(table.rows[marked].label(), "snapkv, question [question-aware]");
  EXPECT_EQ(table.rows[marked].cells[0]->metrics[0].estimate.mean, 1);
  ASSERT_FALSE(table.comparison.pairs.empty());
  for (const PairSummary& pair : table.comparison.pairs) EXPECT_TRUE(pair.first != marked && pair.second != marked);
  EXPECT_NE(table.comparison.reference, marked);
  const std::string text = report_markdown(t, "x");
  const size_t conclusions = text.find("##");
  EXPECT_EQ(text.substr(0, conclusions).find("snapkv"), std::string::npos);
  EXPECT_THAT(text, HasSubstr("question [question-aware]"));
  EXPECT_THAT(report_csv(t), HasSubstr("[question-aware]"));
}

TEST(Comparison, TargetsInBytesStandBehindTheOthers) {
  const std::vector<bool> right = first(3, 6);
  const Tabulated t =
      tabulated({answered("a", "2 MiB", right), answered("a", "900 kB", right), answered("a", "64 entries", right),
                 answered("a", "128 entries", right), answered("a", "1 GiB", right), answered("a", 0.5, right)});
  const std::vector<Json> order = {0.5, "128 entries", "64 entries", "1 GiB", "2 MiB", "900 kB"};
  EXPECT_EQ(t.tables.at(0).targets, order);
  EXPECT_THAT(report_markdown(t, "x"), HasSubstr("as kept fraction, entries per head or bytes of the whole cache."));
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
  EXPECT_THAT(report_markdown(t, "x"), HasSubstr("against summarize"));
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

ComparisonSettings compared_to(const std::string& method) {
  ComparisonSettings settings;
  settings.compare_to = method;
  return settings;
}

std::vector<Record> joined(const std::vector<std::vector<Record>>& parts) {
  std::vector<Record> records;
  for (const auto& part : parts) records.insert(records.end(), part.begin(), part.end());
  return records;
}

// At 0.1 a beats c by 12 questions, b lies between; at 0.05 all are alike.
std::vector<Record> three_methods() {
  return joined({answered("a", 0.1, first(14, 20)), answered("b", 0.1, first(8, 20)), answered("c", 0.1, first(2, 20)),
                 answered("a", 0.05, first(2, 20)), answered("b", 0.05, first(2, 20)),
                 answered("c", 0.05, first(2, 20))});
}

TEST(Comparison, AFamilyIsTheReferenceAtOneTarget) {
  const Comparison comparison = tabulate(three_methods(), nullptr, compared_to("a")).tables.at(0).comparison;
  EXPECT_EQ(comparison.reference, 0u);
  EXPECT_TRUE(comparison.reference_is_declared);
  EXPECT_EQ(comparison.n_hypotheses, 6);
  EXPECT_EQ(comparison.n_area_hypotheses, 3);
  ASSERT_EQ(comparison.pairs.size(), 9u);
  // By hand: p = 2/2^6 and 2/2^12, of two; the areas of the same questions have the same p and decide nothing less.
  EXPECT_DOUBLE_EQ(*comparison.pairs[0].p_holm, 2.0 / 64);
  EXPECT_DOUBLE_EQ(*comparison.pairs[1].p_holm, 2 * 2.0 / 4096);
  EXPECT_EQ(comparison.pairs[0].better, 1);
  EXPECT_EQ(comparison.pairs[1].better, 1);
  EXPECT_FALSE(comparison.pairs[2].p_holm);  // b and c: no pair with the reference
  // All six pairs by Benjamini and Hochberg: 2/4096 * 6, then 2/64 * 6 / 3 twice; 1 for what is alike.
  EXPECT_DOUBLE_EQ(*comparison.pairs[1].p_bh, 6 * 2.0 / 4096);
  EXPECT_DOUBLE_EQ(*comparison.pairs[2].p_bh, 2 * 2.0 / 64);
  EXPECT_DOUBLE_EQ(*comparison.pairs[3].p_bh, 1);
  EXPECT_DOUBLE_EQ(comparison.areas[0]->mean, (0.7 + 0.1) / 2);
}

// Of three methods any could have come out best: p counts one and a half times.
TEST(Comparison, AReferenceThatTheDataChoseIsPaidFor) {
  const Comparison comparison = tabulate(three_methods()).tables.at(0).comparison;
  EXPECT_EQ(comparison.reference, 0u);
  EXPECT_FALSE(comparison.reference_is_declared);
  EXPECT_DOUBLE_EQ(comparison.selection_factor, 1.5);
  EXPECT_DOUBLE_EQ(*comparison.pairs[1].p_holm, 1.5 * 2 * 2.0 / 4096);
  EXPECT_DOUBLE_EQ(*comparison.pairs[0].p_holm, 1.5 * 2.0 / 64);
}

// Better at one size and worse at another: the areas are alike, so no size is claimed.
TEST(Comparison, TheAreaIsTheGatekeeper) {
  std::vector<bool> last(20, false);
  std::fill(last.begin() + 10, last.end(), true);
  const Table table = tabulate(joined({answered("a", 0.1, first(10, 20)), answered("b", 0.1, first(0, 20)),
                                       answered("a", 0.05, first(0, 20)), answered("b", 0.05, last)}),
                               nullptr, compared_to("a"))
                          .tables.at(0);
  const auto& pairs = table.comparison.pairs;
  EXPECT_DOUBLE_EQ(*pairs[0].pair.p, 2.0 / 1024);
  EXPECT_GT(*pairs[2].pair.p, 0.5);
  EXPECT_EQ(pairs[0].p_holm, pairs[2].p_holm);
  EXPECT_EQ(pairs[0].better, 0);
  EXPECT_EQ(pairs[0].better_bh, 1);  // told apart by itself, beside the claim
}

TEST(Comparison, ANameThatFitsNoRowIsToldAndTheBestIsTaken) {
  const Tabulated t = tabulate(three_methods(), nullptr, compared_to("snapkv"));
  EXPECT_EQ(t.tables.at(0).comparison.reference, 0u);
  EXPECT_THAT(t.warnings, ::testing::ElementsAre(HasSubstr("unknown method 'snapkv' in compare_to")));
}

TEST(Comparison, WhatIsUndecidedIsCalledSo) {
  const Table table = tabulate(three_methods(), nullptr, compared_to("a")).tables.at(0);
  const TextTable ranks = rank_table(table);  // nothing is decided at 0.05
  EXPECT_EQ(ranks.header[2], "0.1");
  EXPECT_EQ(ranks.header[3], "mean over log ratio");
  EXPECT_EQ(ranks.rows[0][2], "1–2");
  EXPECT_EQ(ranks.rows[1][2], "undecided");
  const TextTable versus = versus_reference_table(table);
  ASSERT_EQ(versus.rows.size(), 2u);
  EXPECT_EQ(versus.header[3], "0.1");
  EXPECT_THAT(versus.rows[1][3], HasSubstr("(0/12/8) p<0.001 *"));
  EXPECT_THAT(versus.rows[0][4], HasSubstr("0.00 [-0.14, 0.14] (0/0/20) p=1.00"));
  EXPECT_THAT(versus_reference_note(table), HasSubstr("2 of 4 are decided"));
}

// A claim about one in three, six or more methods that are all alike: it must be wrong in at most 5 % of tables, with a
// reference that is declared and with one that the data chose.
TEST(Comparison, MethodsThatAreAlikeAreNotToldApart) {
  std::mt19937_64 random(37);
  const auto uniform = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
  constexpr int kRepeats = 200;
  for (const char* reference : {"m0", ""}) {
    int wrong = 0;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      std::vector<std::vector<Record>> parts;
      std::vector<double> difficulty;
      for (int i = 0; i < 64; ++i) difficulty.push_back(0.2 + 0.6 * uniform());
      for (int method = 0; method < 5; ++method) {
        std::vector<bool> right;
        for (const double p : difficulty) right.push_back(uniform() < p);
        parts.push_back(answered("m" + std::to_string(method), 0.1, right, 8));
      }
      const auto pairs = tabulate(joined(parts), nullptr, compared_to(reference)).tables.at(0).comparison.pairs;
      wrong += std::any_of(pairs.begin(), pairs.end(), [](const PairSummary& pair) { return pair.better != 0; });
    }
    EXPECT_LE(wrong, 0.05 * kRepeats + 3) << reference;
  }
}

TEST(Comparison, EquivalentToTheFullCacheWhereEnoughAnswersAgree) {
  std::vector<bool> right = first(100, 160), worse = right;
  const std::vector<bool> none(right.size(), false);
  worse[0] = false;
  const Tabulated t = tabulate(joined(
      {answered("full_cache", nullptr, right, 20), answered("a", 0.5, worse, 20), answered("b", 0.5, none, 20)}));
  const Table& table = t.tables.at(0);
  const VersusFull& close = *table.rows[1].cells[0]->metrics[0].versus_full;
  EXPECT_LT(*close.p_equivalence_holm, 0.05);
  EXPECT_GT(*close.pair.p, 0.05);
  const TextTable text = versus_full_table(table, 0);
  ASSERT_EQ(text.rows.size(), 2u);
  EXPECT_THAT(text.rows[0][2], ::testing::EndsWith("="));
  EXPECT_THAT(text.rows[1][2], ::testing::EndsWith("*"));
  EXPECT_THAT(metric_table(table, 0).rows[1][2], ::testing::EndsWith("="));
  ComparisonSettings strict;
  strict.margin["accuracy"] = 0.01;
  const auto again =
      tabulate(joined({answered("full_cache", nullptr, right, 20), answered("a", 0.5, worse, 20)}), nullptr, strict);
  EXPECT_GT(*again.tables.at(0).rows[1].cells[0]->metrics[0].versus_full->p_equivalence_holm, 0.05);
}

TEST(Comparison, LowerIsBetterForKl) {
  Shape shape;
  shape.n_documents = 8;
  const Tabulated t = tabulate(test_records::make(shape));
  const auto fidelity = std::find_if(t.tables.begin(), t.tables.end(),
                                     [](const Table& table) { return table.task.at("name") == "fidelity"; });
  const Comparison& comparison = fidelity->comparison;
  for (const PairSummary& pair : comparison.pairs) {
    EXPECT_FALSE(pair.pair.p_mcnemar.has_value());
    EXPECT_TRUE(pair.better == 0 || (pair.better > 0) == (*pair.pair.ratio < 1));
  }
  EXPECT_EQ(comparison.pairs.size(), 15u * 6);  // 6 methods, 5 targets and the area
  // The synthetic methods lose more the further down the list, random keys most.
  const auto row_of = [&](const std::string& label) {
    size_t row = 0;
    while (fidelity->rows.at(row).method_label != label) ++row;
    return row;
  };
  EXPECT_EQ(comparison.ranks[row_of("random_keys")][4]->best, 6);
  EXPECT_EQ(comparison.ranks[row_of("attention_matching (bias=nnls)")][4]->best, 1);
  EXPECT_EQ(comparison.reference, row_of("attention_matching (bias=nnls)"));
  EXPECT_FALSE(comparison.ranks[0][0].has_value());  // the full cache is no contestant
}

TEST(Comparison, AreasNeedEveryTarget) {
  const Tabulated t = tabulated(
      {answered("a", 0.1, first(5, 10)), answered("a", 0.05, first(3, 10)), answered("b", 0.1, first(5, 10))});
  EXPECT_TRUE(t.tables.at(0).comparison.areas[0].has_value());
  EXPECT_FALSE(t.tables.at(0).comparison.areas[1].has_value());
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
    EXPECT_EQ(retained_note(t.tables[0], 0).find("over questions") != std::string::npos, per_document == 30);
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
  EXPECT_THAT(report_markdown(t, "x"), HasSubstr("of all 950 pairs are decided"));
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
