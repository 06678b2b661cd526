#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "datasets/ruler_text.h"
#include "harness/api/dataset.h"
#include "harness/testing/checks.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// White space between words: a plain stand-in for a tokenizer.
int64_t count_words(std::string_view text) {
  int64_t n = 0;
  bool inside = false;
  for (const char c : text) {
    const bool word = std::isspace(static_cast<unsigned char>(c)) == 0;
    n += word && !inside ? 1 : 0;
    inside = word;
  }
  return n;
}

std::vector<Document> load(const Json& options, std::uint64_t seed = 7) {
  return Registry<Dataset>::instance().create("ruler", options)->load({seed, count_words});
}

std::string error_of(const Json& options) {
  return kvc::error_of([&] { load(options); });
}

std::vector<std::string> references(const Question& question) {
  return question.extra.at("references").get<std::vector<std::string>>();
}

std::map<std::string, int64_t> word_counts(const std::string& text) {
  std::map<std::string, int64_t> counts;
  std::istringstream in(text);
  for (std::string word; in >> word;) ++counts[word];
  return counts;
}

class RulerTask : public ::testing::TestWithParam<std::string> {};

std::vector<std::string> tasks_without_file() {
  std::vector<std::string> tasks = ruler_tasks();
  std::erase(tasks, "qa");
  return tasks;
}

TEST_P(RulerTask, HasTheLengthAskedForAndDependsOnSeedAlone) {
  const Json options = {{"task", GetParam()}, {"tokens", 1500}, {"documents", 3}};
  const std::vector<Document> documents = load(options);
  ASSERT_EQ(documents.size(), 3u);
  std::set<std::string> texts;
  for (const Document& document : documents) {
    const int64_t n = count_words(document.text);
    EXPECT_LE(n, 1500);
    EXPECT_GE(n, 1500 * 0.96) << document.id;
    texts.insert(document.text);
    ASSERT_EQ(document.questions.size(), 1u);
    EXPECT_FALSE(document.questions[0].answer_prefix.empty());
    EXPECT_FALSE(references(document.questions[0]).empty());
  }
  EXPECT_EQ(texts.size(), 3u);
  EXPECT_EQ(load(options)[2].text, documents[2].text);
  EXPECT_NE(load(options, 8)[2].text, documents[2].text);
}

INSTANTIATE_TEST_SUITE_P(All, RulerTask, ::testing::ValuesIn(tasks_without_file()),
                         [](const auto& instance) { return instance.param; });

struct NeedleCase {
  const char* task;
  size_t statements;  // in a haystack that is no list of them
  size_t references;
  bool uuids;
};

TEST(Ruler, NeedlesAreHiddenAsOftenAsThePaperSays) {
  for (const NeedleCase& expected :
       {NeedleCase{"niah_single_1", 1, 1, false}, NeedleCase{"niah_single_2", 1, 1, false},
        NeedleCase{"niah_single_3", 1, 1, true}, NeedleCase{"niah_multikey_1", 4, 1, false},
        NeedleCase{"niah_multivalue", 4, 4, false}, NeedleCase{"niah_multiquery", 4, 4, false}}) {
    for (const Document& document : load({{"task", expected.task}, {"tokens", 1200}, {"documents", 4}})) {
      EXPECT_EQ(occurrences(document.text, "A secret "), expected.statements) << expected.task;
      const std::vector<std::string> values = references(document.questions[0]);
      ASSERT_EQ(values.size(), expected.references) << expected.task;
      for (const std::string& value : values) {
        EXPECT_EQ(occurrences(document.text, "is " + value + "."), 1u) << expected.task;
        EXPECT_EQ(value.size(), expected.uuids ? 36u : 7u);
      }
    }
  }
}

TEST(Ruler, LinesOfNeedlesNameEveryKeyOnce) {
  for (const char* task : {"niah_multikey_2", "niah_multikey_3"}) {
    const Document document = load({{"task", task}, {"tokens", 2000}, {"documents", 1}})[0];
    std::istringstream in(document.text);
    std::set<std::string> keys;
    size_t n = 0;
    for (std::string line; std::getline(in, line);) {
      if (!line.starts_with("A secret ")) continue;
      const size_t from = line.find(" for ") + 5;
      keys.insert(line.substr(from, line.find(" is ") - from));
      ++n;
    }
    EXPECT_GT(n, 200u);
    EXPECT_EQ(keys.size(), n);
    EXPECT_EQ(occurrences(document.text, references(document.questions[0])[0]), 1u);
  }
}

// Depths are spread over the document: 40 even places, as published.
TEST(Ruler, DepthsOfNeedlesAreSpread) {
  double least = 1, most = 0, sum = 0;
  const std::vector<Document> documents = load({{"task", "niah_single_2"}, {"tokens", 600}, {"documents", 60}});
  for (const Document& document : documents) {
    const double depth = document.questions[0].extra.at("depth_fraction").get<double>();
    const auto at = static_cast<double>(document.text.find("A secret number"));
    EXPECT_NEAR(depth, at / static_cast<double>(document.text.size()), 1e-4);
    least = std::min(least, depth);
    most = std::max(most, depth);
    sum += depth;
  }
  EXPECT_LT(least, 0.12);
  EXPECT_GT(most, 0.88);
  EXPECT_NEAR(sum / 60, 0.5, 0.13);  // three and a half standard errors of an even spread
}

TEST(Ruler, AChainOfVariablesCanBeFollowed) {
  const Document document = load({{"task", "vt"}, {"tokens", 900}, {"documents", 1}})[0];
  const std::vector<std::string> names = references(document.questions[0]);
  ASSERT_EQ(names.size(), 5u);
  size_t last = document.text.rfind("The text below hides");
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string statement =
        i == 0 ? fmt::format("VAR {} = ", names[0]) : fmt::format("VAR {} = VAR {}", names[i], names[i - 1]);
    const size_t at = document.text.find(statement, last);
    ASSERT_NE(at, std::string::npos) << statement;
    if (i == 0) {
      EXPECT_THAT(document.questions[0].text, HasSubstr(document.text.substr(at + statement.size(), 5)));
    }
    last = at;
  }
}

TEST(Ruler, CommonWordsStandMoreOften) {
  for (const auto& [tokens, often, rarely] : {std::tuple{1500, 6, 1}, std::tuple{9000, 30, 3}}) {
    const Document document = load({{"task", "cwe"}, {"tokens", tokens}, {"documents", 1}})[0];
    const std::vector<std::string> common = references(document.questions[0]);
    const std::set<std::string> wanted(common.begin(), common.end());
    ASSERT_EQ(wanted.size(), 10u);
    const std::string list = document.text.substr(document.text.rfind("stand most often.\n"));
    int64_t n_others = 0;
    for (const auto& [word, count] : word_counts(list)) {
      if (word.find('-') == std::string::npos) continue;
      EXPECT_EQ(count, wanted.count(word) > 0 ? often : rarely) << word;
      n_others += wanted.count(word) > 0 ? 0 : 1;
    }
    EXPECT_GT(n_others, 100);
  }
}

// Rank k stands n / (k^2 zeta(2)) times.
TEST(Ruler, FrequentWordsFallWithTheSquareOfTheirRank) {
  const Document document = load({{"task", "fwe"}, {"tokens", 3000}, {"documents", 1}})[0];
  std::map<std::string, int64_t> counts = word_counts(document.text.substr(document.text.find("\n\n")));
  const std::vector<std::string> top = references(document.questions[0]);
  ASSERT_EQ(top.size(), 3u);
  const auto noise = static_cast<double>(counts["..."]);
  for (size_t i = 0; i < 3; ++i) {
    const double rank = static_cast<double>(i) + 2;
    EXPECT_NEAR(static_cast<double>(counts[top[i]]), noise / (rank * rank), 1.0);
  }
  for (const auto& [word, count] : counts) {
    if (word != "..." && std::find(top.begin(), top.end(), word) == top.end()) {
      EXPECT_LT(count, counts[top[2]]);
    }
  }
}

std::string squad_file(const TemporaryFolder& folder) {
  Json paragraphs = Json::array();
  for (int i = 0; i < 30; ++i) {
    paragraphs.push_back(
        {{"context", fmt::format("Passage {} tells that town {} was founded in {} by the river.", i, i, 1500 + i)},
         {"qas",
          {{{"question", fmt::format("When was town {} founded?", i)},
            {"is_impossible", i == 0},
            {"answers", {{{"text", std::to_string(1500 + i)}}}}}}}});
  }
  std::ofstream(folder.file("squad.json")) << Json{{"data", {{{"paragraphs", paragraphs}}}}};
  return folder.file("squad.json");
}

TEST(Ruler, SquadQuestionsHaveTheirPassageAmongOthers) {
  const TemporaryFolder folder;
  const std::vector<Document> documents =
      load({{"task", "qa"}, {"qa_path", squad_file(folder)}, {"tokens", 200}, {"documents", 3}});
  EXPECT_EQ(documents[0].questions[0].gold_answer, "1501");  // the first has no answer
  for (const Document& document : documents) {
    EXPECT_EQ(occurrences(document.text, document.questions[0].gold_answer), 1u);
    EXPECT_GT(occurrences(document.text, "Passage "), 8u);
    EXPECT_LE(count_words(document.text), 200);
    EXPECT_EQ(document.questions[0].extra.at("any_reference"), true);
  }
  // More tokens than the file has: all of it.
  EXPECT_EQ(occurrences(load({{"task", "qa"}, {"qa_path", squad_file(folder)}, {"tokens", 9000}})[0].text, "Passage "),
            30u);
}

TEST(Ruler, HotpotQuestionsHaveAllTheirPassages) {
  const TemporaryFolder folder;
  Json items = Json::array();
  for (int i = 0; i < 12; ++i) {
    const Json book =
        Json::array({fmt::format("Book {}", i), Json::array({"It is long. ", fmt::format("Author {} wrote it.", i)})});
    const Json town = Json::array({fmt::format("Town {}", i), Json::array({"A town."})});
    items.push_back({{"question", fmt::format("Who wrote book {}?", i)},
                     {"answer", fmt::format("Author {}", i)},
                     {"context", Json::array({book, town})}});
  }
  std::ofstream(folder.file("hotpot.json")) << items;
  const Document document =
      load({{"task", "qa"}, {"qa_path", folder.file("hotpot.json")}, {"tokens", 150}, {"documents", 1}})[0];
  EXPECT_THAT(document.text, HasSubstr("Book 0\nIt is long. Author 0 wrote it."));
  EXPECT_THAT(document.text, HasSubstr("Town 0\nA town."));
}

TEST(Ruler, ErrorsSayWhatToDo) {
  EXPECT_THAT(error_of({{"task", "niah"}}), HasSubstr("niah_single_1, niah_single_2"));
  EXPECT_THAT(error_of({{"task", "cwe"}, {"tokens", 128}}), HasSubstr("the shortest text of cwe has"));
  EXPECT_THAT(error_of({{"task", "qa"}}), HasSubstr("SQuAD"));
  const TemporaryFolder folder;
  const auto with = [&](const std::string& text) {
    std::ofstream(folder.file("x.json")) << text;
    return error_of({{"task", "qa"}, {"qa_path", folder.file("x.json")}, {"tokens", 200}});
  };
  EXPECT_THAT(with("{"), HasSubstr("the file is not valid JSON"));
  EXPECT_THAT(with("[]"), HasSubstr("no question with an answer"));
  EXPECT_THAT(with(R"({"data": [{"paragraphs": [{"context": 3, "qas": []}]}]})"),
              HasSubstr("data[0].paragraphs[0].context"));
  EXPECT_THAT(with(R"([{"question": "q"}])"), HasSubstr("'answer' is missing"));
  // A key twice, an empty passage, an id twice, a text that is none, another version: each with its field.
  const std::string question = R"("qas": [{"id": "7", "question": "q", "answers": [{"text": "a"}]}])";
  EXPECT_THAT(with(R"({"data": [{"paragraphs": [{"context": "a", "context": "b", )" + question + "}]}]}"),
              HasSubstr("duplicate key 'context'"));
  EXPECT_THAT(with(R"({"data": [{"paragraphs": [{"context": " ", )" + question + "}]}]}"),
              AllOf(HasSubstr("'context' is empty"), HasSubstr("data[0].paragraphs[0].context")));
  EXPECT_THAT(with(R"({"data": [{"paragraphs": [{"context": "a", )" + question + R"(}, {"context": "b", )" + question +
                   "}]}]}"),
              AllOf(HasSubstr("duplicate question id '7'\n"), HasSubstr("data[0].paragraphs[1].qas[0].id")));
  EXPECT_THAT(with(R"([{"_id": "1", "question": "q", "answer": "a", "context": [["t", ["s"]]]},
                       {"_id": "1", "question": "q", "answer": "a", "context": [["t", ["s"]]]}])"),
              AllOf(HasSubstr("duplicate question id '1'"), HasSubstr("[1]._id")));
  EXPECT_THAT(
      with(R"({"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "q", "answers": [{"text": 5}]}]}]}]})"),
      AllOf(HasSubstr("'text' must be text; got 5"), HasSubstr("qas[0].answers[0].text")));
  EXPECT_THAT(with(R"({"version": "3.0", "data": []})"), HasSubstr("'version' must be 1.1 or 2.0; got \"3.0\""));
  EXPECT_THAT(error_of({{"task", "qa"}, {"qa_path", squad_file(folder)}, {"tokens", 200}, {"documents", 40}}),
              HasSubstr("the file has 29 with an answer"));
}

}  // namespace
}  // namespace kvc
