// The printed picture: what it shows, and that no text lies on another.
#include "harness/report/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>
#include <set>

#include "harness/report/series_style.h"
#include "harness/report/svg.h"
#include "harness/report/test_records.h"
#include "harness/testing/checks.h"

namespace kvc {
namespace {

using test_records::Shape;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Plot, HasAPanelPerDatasetAndTaskAndAMarkerPerPoint) {
  const auto plots = plots_of(tabulate(test_records::make({})));
  ASSERT_EQ(plots.size(), 1u);
  EXPECT_EQ(plots[0].second.panels.size(), 4u);
  EXPECT_EQ(plots[0].second.series.size(), 6u);
  const std::string svg = render_svg(plots[0].second);
  EXPECT_EQ(occurrences(svg, "<polyline"), 4u * 6);
  EXPECT_EQ(occurrences(svg, "<circle") + occurrences(svg, "<polygon"), 4u * 6 * 5);  // a marker per point
  EXPECT_EQ(occurrences(svg, ">random_keys<"), 4u);                                   // every line is named at its end
  EXPECT_EQ(occurrences(svg, ">full cache<"), 4u);
  EXPECT_EQ(occurrences(svg, ">50x<"), 4u);
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
  EXPECT_EQ(occurrences(svg, "<polyline"), 0u);
  EXPECT_EQ(occurrences(svg, "<circle") + occurrences(svg, "<polygon"), 4u);
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

// Names that stay unique by a number, or tell a size of their own, are longer than most: the panels are then wider.
TEST(Plot, LongNamesMakeThePanelsWider) {
  for (const bool grey : {false, true}) {
    Plot plot;
    PlotPanel panel;
    panel.title = "d, t";
    panel.y_label = "accuracy";
    panel.share = true;
    panel.ticks = {0.5, 0.1};
    plot.series = {{"am_highest_attention [12]", {0, 0}}, {"simlayer_kv [13]", {grey ? -1 : 1, 1}}};
    panel.lines = {{0, {{0.5, 0.7, {}, {}, false}, {0.1, 0.6, {}, {}, false}}}, {1, {{0.95, 0.8, {}, {}, false}}}};
    plot.panels = {panel, panel};
    const std::string svg = render_svg(plot);
    std::smatch size;
    ASSERT_TRUE(std::regex_search(svg, size, std::regex("viewBox=\"0 0 ([0-9]+) ")));
    size_t n_names = 0;
    for (const Placed& text : texts_of(svg)) {
      if (text.text.find('[') == std::string::npos) continue;
      ++n_names;
      EXPECT_LE(text.left + svg_text_width(text.text, text.size), std::stod(size[1])) << text.text;
    }
    EXPECT_EQ(n_names, 4u);
  }
}

// Beside the axes stand the names in the order of the values at the size where most of them differ.
TEST(Plot, NamesOfManyLinesAreAListInTheOrderOfTheirValues) {
  Plot plot;
  PlotPanel panel{"t", "y", true};
  panel.ticks = {0.5, 0.1};
  panel.ceiling = 0.9;
  for (size_t i = 0; i < 12; ++i) {
    plot.series.push_back({"method" + std::to_string(i), {i == 4 ? 0 : -1, 0}});
    const double y = 0.05 * static_cast<double>((7 * i) % 12);
    panel.lines.push_back({i, {{0.5, y, {}, {}, false}, {0.1, 0, {}, {}, false}}});
  }
  panel.lines[3].points = {{0.45, 0.7, {}, {}, false}};        // one that finds its size itself
  panel.lines[5].points.erase(panel.lines[5].points.begin());  // one that was asked at another size alone
  panel.lines[5].points[0].y = 0.55;
  plot.series[10].question_aware = true;
  plot.panels.push_back(panel);
  const std::string svg = render_svg(plot);
  std::map<double, std::string> column;  // of what stands at one x, from above
  double names_at = 0;
  for (const Placed& text : texts_of(svg))
    if (text.text == "full cache") names_at = text.left;
  for (const Placed& text : texts_of(svg))
    if (std::abs(text.left - names_at) < 0.1) column[text.y] = text.text;
  std::vector<std::string> names;
  for (const auto& [y, name] : column) names.push_back(name);
  EXPECT_THAT(names, ::testing::ElementsAre("at 50 %:", "full cache", "method3", "method5 at 10 %", "method8",
                                            "method1", "method6", "method11", "method4", "method9", "method2",
                                            "method7", "method0", "knowing the question:", "method10"));
  EXPECT_THAT(svg, HasSubstr(">70<"));  // the value of method3
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
