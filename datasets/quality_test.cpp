#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "datasets/data_file.h"
#include "datasets/quality_file.h"
#include "harness/testing/checks.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<Document> load_quality(const Json& options) {
  return Registry<Dataset>::instance().create("quality", options)->load({});
}

std::string broken(const std::string& name) {
  return "datasets/samples/broken/" + name + ".jsonl";
}

std::string error_of(const Json& options) {
  return kvc::error_of([&] { load_quality(options); });
}

// A broken sample must fail as damaged data, not as wrong usage.
std::string error_of_sample(const std::string& name) {
  return kvc::error_of(ErrorKind::kData, [&] { read_quality_file(broken(name)); });
}

TEST(Quality, ReadsTheRealArticles) {
  const std::vector<Document> documents = load_quality({});
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].id, "20002");
  EXPECT_EQ(documents[0].title, "The Absurdity of Family Love");
  EXPECT_EQ(documents[0].questions.size(), 17u);
  EXPECT_EQ(documents[1].id, "20007");
  ASSERT_EQ(documents[1].questions.size(), 10u);
  EXPECT_THAT(documents[1].text, HasSubstr("could hardly contain its excitement"));
  const Question& first = documents[1].questions[0];
  EXPECT_EQ(first.id, "20007_RZDMZJYW_1");
  EXPECT_EQ(first.text,
            "Why did people say the story about Clinton hiding under a blanket to meet a woman was untrue?");
  EXPECT_EQ(first.gold_option, 2);  // the label in the file is 3
  EXPECT_EQ(first.options[2], "He could not have gotten back home without being found out");
  EXPECT_EQ(first.extra, Json::object());
}

TEST(Quality, ReadsEveryFieldOfTheReleasedForm) {
  const std::vector<Document> documents = load_quality({{"path", "datasets/samples/quality_schema.jsonl"}});
  ASSERT_EQ(documents.size(), 1u);
  const Question& question = documents[0].questions.at(0);
  EXPECT_EQ(documents[0].text, "article text");
  EXPECT_EQ(question.gold_option, 0);
  EXPECT_TRUE(question.extra.at("difficult").is_boolean());
  EXPECT_EQ(question.options[0], "Automation with computers has made the need to work largely obsolete.");  // stripped
}

TEST(Quality, MergesLinesOfOneArticle) {
  const std::vector<Document> documents = load_quality({{"path", "datasets/samples/merged.jsonl"}});
  ASSERT_EQ(documents.size(), 2u);
  std::vector<std::string> ids;
  for (const Question& question : documents[0].questions) ids.push_back(question.id);
  EXPECT_THAT(ids, ElementsAre("1_A_1", "1_A_2", "1_B_1"));
  EXPECT_EQ(documents[1].questions.size(), 1u);
}

TEST(Quality, ChoosesArticlesAndQuestions) {
  const std::vector<Document> documents =
      load_quality({{"articles", Json::array({"20007", "20002"})}, {"max_questions", 3}});
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].id, "20007");
  EXPECT_EQ(documents[0].questions.size(), 3u);
  EXPECT_EQ(documents[1].questions.size(), 3u);
  EXPECT_EQ(load_quality({{"articles", 20007}}).size(), 1u);  // an id without quotes
}

TEST(Quality, NamesWrongArticles) {
  EXPECT_EQ(
      error_of({{"articles", Json::array({"20003", "x"})}}),
      "2 problems in datasets/samples/quality.jsonl\n"
      "1. no article '20003'\n  where: datasets/samples/quality.jsonl, option 'articles'\n"
      "  mend:  did you mean '20002'? Known: 20002, 20007\n"
      "2. no article 'x'\n  where: datasets/samples/quality.jsonl, option 'articles'\n  mend:  known: 20002, 20007");
}

TEST(Quality, ChecksOptions) {
  EXPECT_THAT(error_of({{"max_questions", -1}}), HasSubstr("'max_questions' must be 0 or more; got -1"));
  EXPECT_THAT(error_of({{"articles", Json::array({"1", "1"})}}), HasSubstr("'articles' names an article twice"));
  EXPECT_THAT(error_of({{"path", "no/such.jsonl"}}), HasSubstr("no such data file\n  where: no/such.jsonl"));
  EXPECT_THAT(error_of({{"path", "datasets/samples"}}), HasSubstr("is a folder"));
  EXPECT_THAT(error_of({{"path", ""}}), HasSubstr("'path' must name a QuALITY JSONL file; got ''"));
}

TEST(Quality, PresetsSubsetsAndCounts) {
  EXPECT_THAT(error_of({{"preset", "evaluation_50"}}), HasSubstr("48 problems in"));  // two of the 50 are shipped
  EXPECT_THAT(error_of({{"preset", "head_budget_10"}}), HasSubstr("10 problems in"));
  EXPECT_THAT(error_of({{"preset", "x"}}),
              HasSubstr("'preset' must be evaluation_50 or head_budget_10 (or empty); got 'x'"));
  EXPECT_THAT(error_of({{"preset", "evaluation_50"}, {"articles", "20002"}}),
              HasSubstr("cannot be combined with 'articles'"));
  EXPECT_THAT(error_of({{"subset", "tiny"}}), HasSubstr("'subset' must be smoke, small or full; got 'tiny'"));
  EXPECT_THAT(error_of({{"count", -1}}), HasSubstr("'count' must be 0 or more; got -1"));
  EXPECT_EQ(load_quality({{"count", 1}}).size(), 1u);
  EXPECT_EQ(load_quality({{"subset", "smoke"}, {"path", "datasets/samples/many_articles.jsonl"}}).size(), 2u);
  EXPECT_EQ(load_quality({{"subset", "small"}, {"path", "datasets/samples/many_articles.jsonl"}}).size(), 10u);
  EXPECT_EQ(load_quality({{"path", "datasets/samples/many_articles.jsonl"}}).size(), 12u);
}

TEST(Quality, KeepsTheHardSubset) {
  const std::vector<Document> documents =
      load_quality({{"hard_only", true}, {"path", "datasets/samples/many_articles.jsonl"}});
  ASSERT_EQ(documents.size(), 4u);  // every third article has one hard question of two
  for (const Document& document : documents) {
    ASSERT_EQ(document.questions.size(), 1u);
    EXPECT_EQ(document.questions[0].extra.at("difficult"), true);
  }
  EXPECT_THAT(error_of({{"hard_only", true}}), HasSubstr("has no field 'difficult'"));
  EXPECT_THAT(error_of({{"hard_only", true}, {"count", 2}, {"path", "datasets/samples/many_articles.jsonl"}}),
              HasSubstr("no question is difficult"));
}

struct Broken {
  std::string name, fact, where;
};

class BrokenQuality : public ::testing::TestWithParam<Broken> {};

TEST_P(BrokenQuality, IsExplained) {
  const std::string error = error_of_sample(GetParam().name);
  EXPECT_EQ(error.substr(0, error.find("\n  mend:")),
            GetParam().fact + "\n  where: " + broken(GetParam().name) + GetParam().where);
  EXPECT_THAT(error, HasSubstr("\n  mend:  "));
}

INSTANTIATE_TEST_SUITE_P(
    Samples, BrokenQuality,
    ::testing::Values(
        Broken{"bad_json", "the line is not valid JSON", ":2"},
        Broken{"not_an_object", "the line must be a JSON object", ":1"},
        Broken{"gold_out_of_range", "gold label 5 of 4 options", ":1, questions[0].gold_label"},
        Broken{"gold_zero", "gold label 0 of 4 options", ":1, questions[0].gold_label"},
        Broken{"gold_is_text", "'gold_label' must be an integer; got \"2\"", ":1, questions[0].gold_label"},
        Broken{"gold_huge", "gold label 18446744073709551615 of 4 options", ":1, questions[0].gold_label"},
        Broken{"gold_missing", "'gold_label' is missing", ":1, questions[0].gold_label"},
        Broken{"duplicate_question", "duplicate question id '1_A_1', first in line 1",
               ":2, questions[0].question_unique_id"},
        Broken{"empty_article", "'article' is empty", ":1, article"},
        Broken{"options_missing", "'options' must be a list", ":1, questions[0].options"},
        Broken{"option_repeated", "duplicate option 'a'", ":1, questions[0].options[2]"},
        Broken{"one_option", "there are 1 options", ":1, questions[0].options"},
        Broken{"other_text", "article '1' has another text than in line 1", ":2, article"},
        Broken{"article_is_number", "'article' must be text; got 7", ":1, article"},
        Broken{"title_missing", "'title' is missing", ":1, title"},
        Broken{"no_questions", "'questions' must be a list of at least one", ":1, questions"},
        Broken{"difficult_is_text", "'difficult' is \"yes\"", ":1, questions[0].difficult"},
        Broken{"empty", "the file has no line of data", ""}),
    [](const auto& test) { return test.param.name; });

TEST(Quality, ReportsAllProblemsAtOnce) {
  const std::string path = broken("several");
  EXPECT_EQ(error_of_sample("several"),
            "4 problems in " + path + "\n1. gold label 9 of 4 options\n  where: " + path +
                ":1, questions[0].gold_label\n  mend:  1 to 4"
                "\n2. the line is not valid JSON\n  where: " +
                path +
                ":2\n  mend:  each line is one whole object "
                "{\"article_id\": ..., \"article\": ..., \"questions\": [...]}"
                "\n3. 'article' is empty\n  where: " +
                path +
                ":3, article\n  mend:  give its text or remove the line"
                "\n4. duplicate option 'a'\n  where: " +
                path + ":3, questions[0].options[1]\n  mend:  options of one question must differ");
}

TEST(Quality, ListsNoMoreThanTwentyProblems) {
  const std::string error = error_of_sample("many");
  EXPECT_THAT(error, HasSubstr("20 problems in datasets/samples/broken/many.jsonl (the first 20 of 25)"));
  EXPECT_THAT(error, HasSubstr("many.jsonl:20"));
  EXPECT_THAT(error, Not(HasSubstr("many.jsonl:21")));
}

TEST(Quality, EveryBrokenSampleIsTested) {
  for (const auto& entry : std::filesystem::directory_iterator(KVC_SOURCE_DIR "/datasets/samples/broken")) {
    EXPECT_THROW(read_quality_file(entry.path().string()), Error) << entry.path();
  }
}

TEST(Quality, IdentityFollowsTheContent) {
  const Json a = data_file_identity(kQualitySample);
  EXPECT_EQ(a.at("file"), kQualitySample);
  EXPECT_EQ(a.at("content_hash").get<std::string>().size(), 16u);
  EXPECT_NE(a.at("content_hash"), data_file_identity("datasets/samples/merged.jsonl").at("content_hash"));
}

}  // namespace
}  // namespace kvc
