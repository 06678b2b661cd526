// RULER's texts beside those of the published generator: how often things are hidden, how long and at what depth. The
// golden numbers come from the published scripts themselves, see scripts/golden/ruler.py.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "datasets/ruler_text.h"
#include "harness/api/dataset.h"

namespace kvc {
namespace {

// As the stand-in for a tokenizer with which the golden numbers were made: words between white space.
int64_t count_words(std::string_view text) {
  std::istringstream in{std::string(text)};
  int64_t n = 0;
  for (std::string word; in >> word;) ++n;
  return n;
}

const Json& golden() {
  static const Json file =
      Json::parse(std::ifstream(std::string(KVC_SOURCE_DIR) + "/harness/testing/golden/ruler.json"));
  return file;
}

int64_t occurrences(const std::string& text, const std::string& part) {
  int64_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

std::vector<std::string> matches(const std::string& text, const std::string& pattern) {
  const std::regex regex(pattern);
  std::vector<std::string> list;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), regex); it != std::sregex_iterator(); ++it) {
    list.push_back((*it)[1]);
  }
  return list;
}

RulerSources essay_sources() {
  RulerSources sources;
  for (int i = 0; i < 4000; ++i) sources.essays += fmt::format("Sentence {} of these essays says nothing of use. ", i);
  return sources;
}

// Two samples of one distribution differ by less in all but one of a thousand cases (Kolmogorov and Smirnov); depths
// that are only known to a tenth of the text differ by less still.
void expect_same_depths(const std::vector<double>& ours, const Json& deciles, const std::string& task) {
  std::vector<double> counts(10, 0);
  for (const double depth : ours) counts[std::min<size_t>(9, static_cast<size_t>(depth * 10))] += 1;
  double n_theirs = 0, sum_ours = 0, sum_theirs = 0, difference = 0;
  for (const Json& count : deciles) n_theirs += count.get<double>();
  const auto n_ours = static_cast<double>(ours.size());
  for (size_t i = 0; i < 10; ++i) {
    sum_ours += counts[i] / n_ours;
    sum_theirs += deciles[i].get<double>() / n_theirs;
    difference = std::max(difference, std::abs(sum_ours - sum_theirs));
  }
  EXPECT_LT(difference, 1.95 * std::sqrt((n_ours + n_theirs) / (n_ours * n_theirs))) << task;
}

struct Drawn {
  std::vector<RulerSample> samples;
  std::vector<double> depths;
};

Drawn draw(const std::string& task, int64_t size, const RulerSources& sources, int n = 200) {
  Drawn drawn;
  for (int i = 0; i < n; ++i) {
    drawn.samples.push_back(ruler_sample(task, size, sources, RandomDraws(static_cast<std::uint64_t>(i) + 1)));
    const auto& depths = drawn.samples.back().depth_fractions;
    drawn.depths.insert(drawn.depths.end(), depths.begin(), depths.end());
  }
  return drawn;
}

TEST(RulerPublished, NeedlesHaveItsCountsAndDepths) {
  const RulerSources sources = essay_sources();
  for (const auto& [task, wanted] : golden().at("tasks").items()) {
    if (!task.starts_with("niah")) continue;
    const Drawn drawn = draw(task, wanted.at("size").get<int64_t>(), sources);
    for (const RulerSample& sample : drawn.samples) {
      const std::vector<std::string> keys = matches(sample.text, "A secret [a-z]+ for (\\S+) is ");
      EXPECT_EQ(keys.size(), wanted.at("statements").get<size_t>()) << task;
      if (wanted.contains("keys")) {
        EXPECT_EQ(std::set<std::string>(keys.begin(), keys.end()).size(), wanted.at("keys").get<size_t>()) << task;
      }
      ASSERT_EQ(sample.references.size(), wanted.at("references").get<size_t>()) << task;
      EXPECT_EQ(sample.references[0].size(), wanted.at("value_length").get<size_t>()) << task;
    }
    expect_same_depths(drawn.depths, wanted.at("depths"), task);
  }
}

TEST(RulerPublished, ChainsOfVariablesHaveItsExampleAndDepths) {
  const Json& wanted = golden().at("tasks").at("vt");
  RulerSources sources;
  sources.worked_example = ruler_tracking_example(count_words, RandomDraws(3));
  const auto expect_part = [&](const std::string& text, const std::string& part) {
    const std::vector<std::string> names = matches(text, "VAR ([A-Z]+) = ");
    EXPECT_EQ(names.size(), wanted.at(part + "names").get<size_t>()) << part;
    for (const std::string& name : names) EXPECT_EQ(name.size(), wanted.at(part + "letters").get<size_t>()) << part;
    EXPECT_EQ(occurrences(text, "On we walk."), wanted.at(part + "size").get<int64_t>()) << part;
  };
  expect_part(sources.worked_example, "example_");
  // The sentences are our own, so that the words differ by a few in five hundred.
  EXPECT_NEAR(static_cast<double>(count_words(sources.worked_example)), wanted.at("example_words").get<double>(), 25);
  const Drawn drawn = draw("vt", wanted.at("size").get<int64_t>(), sources);
  std::vector<double> depths;
  for (const RulerSample& sample : drawn.samples) {
    const std::string text = sample.text.substr(sources.worked_example.size());
    expect_part(text, "");
    EXPECT_EQ(matches(text, "VAR ([A-Z]+) = "), sample.references);
    EXPECT_EQ(matches(text, "VAR [A-Z]+ = ([0-9]+)").at(0).size(), wanted.at("value_length").get<size_t>());
    for (const std::string& name : sample.references) {
      depths.push_back(static_cast<double>(text.find("VAR " + name + " = ")) / static_cast<double>(text.size()));
    }
  }
  expect_same_depths(depths, wanted.at("depths"), "vt");
}

// {times that a word stands in a numbered list: words}
using Times = std::map<std::string, int64_t>;

Times times_of_words(const std::string& list) {
  Times of_word, times;
  std::istringstream in(list);
  for (std::string word; in >> word;) {
    if (std::isdigit(static_cast<unsigned char>(word[0])) == 0) ++of_word[word];
  }
  for (const auto& [word, n] : of_word) ++times[std::to_string(n)];
  return times;
}

TEST(RulerPublished, CommonWordsStandAsOften) {
  for (const Json& wanted : golden().at("tasks").at("cwe")) {
    RulerSources sources;
    sources.tokens = wanted.at("max_seq_length").get<int64_t>();
    for (const RulerSample& sample : draw("cwe", wanted.at("size").get<int64_t>(), sources, 5).samples) {
      const std::string mark = "stand most often.\n";
      const size_t first = sample.text.find(mark) + mark.size(), last = sample.text.rfind(mark) + mark.size();
      const std::string example = sample.text.substr(first, sample.text.find("\nWhich ten", first) - first);
      EXPECT_EQ(times_of_words(example), wanted.at("example_times").get<Times>());
      EXPECT_EQ(times_of_words(sample.text.substr(last)), wanted.at("times").get<Times>());
      EXPECT_EQ(sample.references.size(), wanted.at("references").get<size_t>());
    }
  }
}

TEST(RulerPublished, FrequentWordsStandAsOften) {
  const Json& wanted = golden().at("tasks").at("fwe");
  RulerSources sources;
  sources.tokens = wanted.at("max_seq_length").get<int64_t>();
  const auto by_rank = wanted.at("by_rank").get<std::vector<int64_t>>();
  constexpr double kZeta2 = 1.6449340668482264;
  // Any size from which the first rank has its count; the others may then differ by one.
  const auto size = static_cast<int64_t>((static_cast<double>(by_rank[0]) + 0.5) * kZeta2);
  for (const RulerSample& sample : draw("fwe", size, sources, 5).samples) {
    std::map<std::string, int64_t> counts;
    std::istringstream in(sample.text.substr(sample.text.find("\n\n")));
    for (std::string word; in >> word;) ++counts[word];
    std::vector<int64_t> ours = {counts["..."]};
    for (const std::string& word : sample.references) ours.push_back(counts[word]);
    std::vector<int64_t> rest;
    for (const auto& [word, n] : counts) {
      if (word != "..." && std::count(sample.references.begin(), sample.references.end(), word) == 0) rest.push_back(n);
    }
    std::sort(rest.rbegin(), rest.rend());
    ours.insert(ours.end(), rest.begin(), rest.end());
    ASSERT_EQ(ours.size(), by_rank.size());
    for (size_t i = 0; i < ours.size(); ++i) EXPECT_NEAR(ours[i], by_rank[i], 1) << "rank " << i + 1;
  }
}

// Six articles of twelve paragraphs with a question each, as the golden numbers were made from.
RulerSources squad_sources() {
  RulerSources sources;
  for (int64_t a = 0; a < 6; ++a) {
    sources.articles.emplace_back();
    for (int64_t p = 0; p < 12; ++p) {
      const std::string name = fmt::format("A{}P{}", a, p);
      sources.articles.back().push_back(sources.passages.size());
      sources.passages.push_back(name + " stands here.");
      sources.questions.push_back({name, "Which is " + name + "?", {name}, {sources.passages.back()}, a});
    }
  }
  return sources;
}

// Passages of the question's own article come before all others.
TEST(RulerPublished, PassagesComeFromTheQuestionsArticleFirst) {
  RulerSources sources = squad_sources();
  for (const Json& wanted : golden().at("tasks").at("qa")) {
    for (sources.index = 0; sources.index < 72; ++sources.index) {
      const RulerSample sample = ruler_sample("qa", wanted.at("passages").get<int64_t>() - 1, sources, RandomDraws(4));
      const std::vector<std::string> names = matches(sample.text, "Document [0-9]+:\\n(A[0-9]+P)[0-9]+");
      EXPECT_EQ(names.size(), wanted.at("passages").get<size_t>());
      const std::string own = fmt::format("A{}P", sources.index / 12);
      EXPECT_EQ(std::count(names.begin(), names.end(), own), wanted.at("of_own_article").get<int64_t>());
    }
  }
}

// The published generator tries lengths in steps and stops below the length asked for; here a text is as long as it
// can be, which is within one step. A line of noise has nineteen words there and here.
TEST(RulerPublished, TextsAreAsLongWithinOneStep) {
  for (const auto& [task, step, answer] : {std::tuple{"niah_single_1", 5, 128}, {"vt", 10, 30}}) {
    const Json& wanted = golden().at("tasks").at(task);
    EXPECT_LE(wanted.at("longest"), wanted.at("max_seq_length"));
    const int64_t tokens = wanted.at("max_seq_length").get<int64_t>() - answer;
    const Json options = {{"task", task}, {"documents", 1}, {"tokens", tokens}};
    const Document document = Registry<Dataset>::instance().create("ruler", options)->load({7, count_words})[0];
    EXPECT_GT(count_words(document.text), tokens - 19) << task;
    const int64_t lines = occurrences(document.text.substr(document.text.rfind("The text below")), "On we walk.");
    // Question and answer's first words, some 30 words, stand behind the document here: at most three more lines.
    EXPECT_GE(lines, wanted.at("size").get<int64_t>() - 1) << task;
    EXPECT_LE(lines, wanted.at("size").get<int64_t>() + step + 3) << task;
  }
}

}  // namespace
}  // namespace kvc
