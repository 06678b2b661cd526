#include "harness/report/heat_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/core/stable_hash.h"
#include "harness/report/report.h"
#include "harness/report/test_records.h"
#include "harness/testing/checks.h"

namespace kvc {
namespace {

using test_records::Shape;
using ::testing::HasSubstr;
using ::testing::Not;

HeatMap map_of(const std::vector<Record>& records) {
  const auto maps = heat_maps_of(tabulate(records));
  return maps.empty() ? HeatMap{} : maps.at(0).second;
}

TEST(HeatMap, TwoDocumentsGiveFewBinsAndCounts) {
  const HeatMap map = map_of(test_records::make({}));
  ASSERT_EQ(map.bands.size(), 1u);  // exact_match of needle; fidelity has no accuracy, quality no depth
  ASSERT_EQ(map.bands[0].panels.size(), 6u);
  EXPECT_THAT(map.bands[0].title, HasSubstr("2 documents"));
  EXPECT_THAT(map.bands[0].title, HasSubstr("12 questions"));
  for (const HeatPanel& panel : map.bands[0].panels) {
    ASSERT_EQ(panel.columns.size(), 6u);
    EXPECT_EQ(panel.columns[0].label, "full");
    EXPECT_TRUE(panel.columns[0].reference);
    EXPECT_EQ(panel.columns[5].label, "50x");
    for (const HeatColumn& column : panel.columns) {
      int64_t n = 0;
      ASSERT_EQ(column.cells.size(), 4u);  // 12 questions, 3 each
      for (const HeatCell& cell : column.cells) n += cell.n;
      EXPECT_EQ(n, 12);
    }
  }
  const std::string svg = render_heat_map(map);
  EXPECT_THAT(svg, HasSubstr("/4<"));
  EXPECT_THAT(svg, HasSubstr("they decide nothing"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(HeatMap, ManyDocumentsGiveTenBinsInPerCent) {
  Shape shape;
  shape.n_documents = 40;
  shape.methods.resize(2);
  const HeatMap map = map_of(test_records::make(shape));
  EXPECT_EQ(map.bands.at(0).panels.at(0).columns.at(0).cells.size(), 10u);
  const std::string svg = render_heat_map(map);
  EXPECT_THAT(svg, Not(HasSubstr("/20<")));
  EXPECT_THAT(svg, Not(HasSubstr("decide nothing")));
  EXPECT_GE(occurrences(svg, "<rect"), 2u * 6 * 10);
}

TEST(HeatMap, CellsHoldTheAccuracyOfTheirDepthAndLength) {
  Shape shape;
  shape.methods.resize(1);
  shape.targets = {0.1};
  shape.n_documents = 4;
  std::vector<Record> records = test_records::make(shape);
  std::erase_if(records, [](const Record& r) { return r.cell.at("task").at("name") != "exact_match"; });
  for (Record& record : records) {
    const bool is_long = record.document_id == "needle-3";
    record.sizes["context_tokens"] = is_long ? 8000 : 2500;
    for (size_t i = 0; i < record.answers.size(); ++i) {
      record.answers[i]["extra"]["depth_fraction"] = i == 5 ? 1.0 : 0.05;
      record.answers[i]["text"] = i == 5 || is_long ? "4821" : "no";
    }
  }
  const HeatMap map = map_of(records);
  ASSERT_EQ(map.bands.size(), 2u);
  EXPECT_THAT(map.bands[0].title, HasSubstr("3 documents of 2500 tokens, 18 questions"));
  const HeatColumn& column = map.bands[0].panels.at(0).columns.at(1);
  ASSERT_EQ(column.cells.size(), 6u);
  EXPECT_EQ(column.cells[0].n, 15);
  EXPECT_EQ(column.cells[0].right, 0);
  EXPECT_EQ(column.cells[5].n, 3);  // depth 1 belongs to the last
  EXPECT_EQ(column.cells[5].right, 3);
  EXPECT_EQ(column.cells[2].n, 0);
  const HeatColumn& far = map.bands[1].panels.at(0).columns.at(1);
  EXPECT_EQ(far.cells[0].right, 5);
  EXPECT_THAT(render_heat_map(map), HasSubstr("#F1F1F1"));  // no question there
}

TEST(HeatMap, AnswersWithoutDepthGiveNone) {
  std::vector<Record> records = test_records::make({});
  for (Record& record : records) {
    for (Json& answer : record.answers) answer["extra"] = Json{{"depth_fraction", "deep"}};
  }
  EXPECT_TRUE(heat_maps_of(tabulate(records)).empty());
  for (Record& record : records) {
    for (Json& answer : record.answers) answer["extra"] = Json{{"depth_fraction", 1.5}};
  }
  EXPECT_TRUE(heat_maps_of(tabulate(records)).empty());
}

TEST(HeatMap, EscapesText) {
  const HeatMap map{"a<b", {{"c&d", {{"e<f", {{"g", false, {{1, 2}}}}}}}}, {}};
  const std::string svg = render_heat_map(map);
  for (const char* text : {"a&lt;b", "c&amp;d", "e&lt;f"}) EXPECT_THAT(svg, HasSubstr(text));
}

// Needles at 0, 25, 50, 75 and 100 % of many documents: five rows, no empty ones between them.
TEST(HeatMap, DepthsOfAGridGiveARowEach) {
  Shape shape;
  shape.n_documents = 12;
  shape.methods.resize(1);
  std::vector<Record> records = test_records::make(shape);
  for (Record& record : records) {
    for (size_t i = 0; i < record.answers.size(); ++i) {
      if (record.cell.at("dataset").at("name") == "needle")
        record.answers[i]["extra"]["depth_fraction"] = static_cast<double>(i % 5) * 0.248 + 0.003;
    }
  }
  const HeatMap map = map_of(records);
  const std::vector<HeatCell>& cells = map.bands.at(0).panels.at(0).columns.at(0).cells;
  ASSERT_EQ(cells.size(), 5u);
  for (const HeatCell& cell : cells) EXPECT_GE(cell.n, 12);
}

// Two documents of one cell, 2 layers of 3 heads.
Record with_heads(const std::string& method, const std::string& document, const Json& errors) {
  Record record;
  record.cell = Json{{"model", {{"name", "m"}}},
                     {"dataset", {{"name", "d"}}},
                     {"task", {{"name", "head_errors"}}},
                     {"queries", nullptr},
                     {"method", {{"name", method}}},
                     {"target", 0.1},
                     {"seed", 7}};
  record.cell_id = stable_hash(canonical_json(record.cell));
  record.document_id = document;
  record.status = "done";
  record.answers = {{{"question_id", "q"}, {"output_relative", 0.5}, {"cosine", 0.25}, {"mass_relative", 0.125}}};
  record.task_notes = {{"heads", {{"output_relative", errors}}}};
  return record;
}

TEST(HeadMap, ShowsTheMeanOverDocuments) {
  const std::vector<Record> records = {with_heads("h2o", "a", {{0.0, 0.5, 1.0}, {0.0, 0.0, 0.0}}),
                                       with_heads("h2o", "b", {{1.0, 0.5, 3.0}, {0.0, 0.0, 0.0}})};
  const Tabulated t = tabulate(records);
  const CellSummary& cell = *t.tables.at(0).rows.at(0).cells.at(0);
  EXPECT_EQ(cell.heads, (Json{{"output_relative", {{0.5, 0.5, 2.0}, {0.0, 0.0, 0.0}}}}));
  EXPECT_EQ(cell.metrics[0].estimate.mean, 0.5);
  EXPECT_EQ(report_json(t).at("tables")[0].at("rows")[0].at("cells")[0].at("heads"), cell.heads);
  const auto maps = head_maps_of(t);
  ASSERT_EQ(maps.size(), 1u);
  EXPECT_EQ(maps[0].first, "m d");
  EXPECT_EQ(occurrences(maps[0].second, heat_colour(0.5) + "\"/>"), 2u);
  EXPECT_GE(occurrences(maps[0].second, heat_colour(1.0) + "\"/>"), 1u);  // an error above 1 has the last colour
  EXPECT_THAT(maps[0].second, HasSubstr(">0.500<"));                      // the mean, 3 / 6
  EXPECT_THAT(maps[0].second, HasSubstr("2 layers from top to bottom, 3 KV heads"));
  EXPECT_THAT(report_markdown(t, "x"), HasSubstr("(report_heads.svg)"));
}

TEST(HeadMap, ListsOfAnotherShapeAreLeftOut) {
  for (const Json& wrong : {Json{{0.5}}, Json("x"), Json::array(), Json{{0.5, "x", 1.0}, {0.0, 0.0, 0.0}}}) {
    const Tabulated t =
        tabulate({with_heads("h2o", "a", {{0.0, 0.5, 1.0}, {0.0, 0.0, 0.0}}), with_heads("h2o", "b", wrong)});
    EXPECT_TRUE(t.tables.at(0).rows.at(0).cells.at(0)->heads.is_null()) << wrong;
    EXPECT_TRUE(head_maps_of(t).empty());
    EXPECT_TRUE(head_maps_of(tabulate({with_heads("h2o", "a", wrong)})).empty() || wrong == Json{{0.5}}) << wrong;
  }
  EXPECT_TRUE(head_maps_of(tabulate(test_records::make({}))).empty());
}

}  // namespace
}  // namespace kvc
