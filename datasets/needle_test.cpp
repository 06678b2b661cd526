#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "datasets/needle_text.h"
#include "datasets/quality_file.h"
#include "harness/testing/checks.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Words and punctuation marks: a plain stand-in for a tokenizer.
int64_t count_words(std::string_view text) {
  int64_t n = 0;
  bool in_word = false;
  for (const char c : text) {
    const bool is_word = std::isalnum(static_cast<unsigned char>(c)) != 0;
    n += is_word ? (in_word ? 0 : 1) : (std::isspace(static_cast<unsigned char>(c)) == 0 ? 1 : 0);
    in_word = is_word;
  }
  return n;
}

std::vector<Document> load_needles(const Json& options, std::uint64_t seed = 7) {
  return Registry<Dataset>::instance().create("needle", options)->load({seed, count_words});
}

std::string error_of(const Json& options) {
  return kvc::error_of([&] { load_needles(options); });
}

TEST(Needle, EveryQuestionHasItsStatementOnceAtItsDepth) {
  for (const Document& document : load_needles({{"documents", 3}, {"tokens", 1500}, {"needles", 9}})) {
    ASSERT_EQ(document.questions.size(), 9u);
    double last = 0;
    for (const Question& question : document.questions) {
      const std::string statement = question.answer_prefix + " " + question.gold_answer + ".";
      EXPECT_EQ(occurrences(document.text, statement), 1u) << statement;
      EXPECT_EQ(occurrences(document.text, question.gold_answer), 1u);
      EXPECT_EQ(question.gold_answer.size(), 4u);
      EXPECT_EQ(question.text.substr(0, 28), "What is the secret code of t");
      const double depth = question.extra.at("depth_fraction").get<double>();
      const auto at = static_cast<double>(document.text.find(statement));
      EXPECT_NEAR(depth, at / static_cast<double>(document.text.size()), 1e-4);
      EXPECT_GT(depth, last);
      last = depth;
    }
  }
}

TEST(Needle, DepthsAreSpreadEvenly) {
  const Document document = load_needles({{"tokens", 2000}, {"needles", 10}}).at(0);
  for (size_t i = 0; i < 10; ++i) {
    const double depth = document.questions[i].extra.at("depth_fraction").get<double>();
    EXPECT_NEAR(depth, (static_cast<double>(i) + 0.5) / 10, 0.06) << i;  // half a part, and half a sentence
  }
}

TEST(Needle, StandsBetweenSentences) {
  const Document document = load_needles({{"tokens", 2000}}).at(0);
  for (const Question& question : document.questions) {
    const size_t at = document.text.find(question.answer_prefix);
    const size_t before = document.text.find_last_not_of(" \n", at - 1);
    EXPECT_NE(std::string(".!?\"')").find(document.text[before]), std::string::npos)
        << document.text.substr(before - 20, 60);
  }
}

TEST(Needle, WithoutTheNeedlesTheTextIsTheArticle) {
  const Document document = load_needles({{"tokens", 1500}}).at(0);
  std::string text = document.text;
  for (const Question& question : document.questions) {
    const std::string statement = question.answer_prefix + " " + question.gold_answer + ".";
    text.erase(text.find(statement), statement.size() + 1);
  }
  EXPECT_EQ(read_quality_file(kQualitySample)[0].text.substr(0, text.size()), text);
}

TEST(Needle, HasTheLengthAskedFor) {
  for (const int64_t tokens : {200, 333, 1000, 2500, 4000}) {
    for (const Document& document : load_needles({{"tokens", tokens}})) {
      EXPECT_NEAR(static_cast<double>(count_words(document.text)), static_cast<double>(tokens),
                  0.02 * static_cast<double>(tokens));
    }
  }
}

TEST(Needle, GoesOnWithTheNextArticle) {
  const std::vector<Document> articles = read_quality_file(kQualitySample);
  const Document document = load_needles({{"tokens", 4000}}).at(1);
  EXPECT_THAT(document.text, HasSubstr(articles[1].text.substr(0, 60)));
  EXPECT_THAT(document.text, HasSubstr(articles[0].text.substr(0, 60)));
  EXPECT_THAT(document.title, HasSubstr(articles[1].title + " / " + articles[0].title));
}

TEST(Needle, SameSeedSameText) {
  const std::vector<Document> a = load_needles({{"tokens", 800}});
  const std::vector<Document> b = load_needles({{"tokens", 800}});
  const std::vector<Document> c = load_needles({{"tokens", 800}}, 8);
  EXPECT_EQ(a[0].text, b[0].text);
  EXPECT_EQ(a[1].text, b[1].text);
  EXPECT_NE(a[0].text, c[0].text);
  // A document does not depend on how many follow it.
  EXPECT_EQ(load_needles({{"tokens", 800}, {"documents", 1}})[0].text, a[0].text);
}

TEST(Needle, HoldsTwoHundredNeedles) {
  const Document document = load_needles({{"tokens", 5000}, {"documents", 1}, {"needles", 200}}).at(0);
  std::set<std::string> subjects, codes;
  for (const Question& question : document.questions) {
    subjects.insert(question.answer_prefix);
    codes.insert(question.gold_answer);
  }
  EXPECT_EQ(subjects.size(), 200u);
  EXPECT_EQ(codes.size(), 200u);
}

TEST(Needle, RefusesWhatCannotBe) {
  EXPECT_THAT(error_of({{"documents", 0}}), HasSubstr("'documents' must be 1 to 100000; got 0"));
  EXPECT_THAT(error_of({{"tokens", 63}}), HasSubstr("'tokens' must be 64 or more; got 63"));
  EXPECT_THAT(error_of({{"needles", 0}}), HasSubstr("'needles' must be 1 to 226; got 0"));
  EXPECT_THAT(error_of({{"needles", 227}}), HasSubstr("'needles' must be 1 to 226; got 227"));
  EXPECT_THAT(error_of({{"tokens", 100}, {"needles", 20}}),
              HasSubstr("20 needles between two sentences need more than 100 tokens"));
  EXPECT_THAT(error_of({{"tokens", 1000000}}), HasSubstr("all 2 articles together have "));
}

// --- the grid ---

std::vector<Document> load_grid(const Json& options, std::uint64_t seed = 7) {
  return Registry<Dataset>::instance().create("needle_grid", options)->load({seed, count_words});
}

std::string grid_error_of(const Json& options) {
  return kvc::error_of([&] { load_grid(options); });
}

TEST(NeedleGrid, EveryLengthAndDepthIsThere) {
  const std::vector<Document> documents =
      load_grid({{"lengths", {700, 1500}}, {"depths", {0, 50, 100}}, {"documents", 2}, {"distractors", 3}});
  ASSERT_EQ(documents.size(), 4u);
  std::set<std::string> ids;
  for (size_t d = 0; d < 4; ++d) {
    const Document& document = documents[d];
    const double length = d < 2 ? 700 : 1500;
    ids.insert(document.id);
    EXPECT_NEAR(static_cast<double>(count_words(document.text)), length, 0.02 * length);
    EXPECT_EQ(occurrences(document.text, "The secret code of the "), 3u * (1 + 3));
    ASSERT_EQ(document.questions.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      const Question& question = document.questions[i];
      EXPECT_EQ(occurrences(document.text, question.answer_prefix + " " + question.gold_answer + "."), 1u);
      EXPECT_EQ(occurrences(document.text, question.answer_prefix), 1u);  // a distractor's subject is another one
      EXPECT_EQ(occurrences(document.text, question.gold_answer), 1u);
      EXPECT_EQ(question.extra.at("depth_asked").get<double>(), 0.5 * static_cast<double>(i));
      EXPECT_EQ(question.extra.at("length_asked").get<double>(), length);
      EXPECT_NEAR(question.extra.at("depth_fraction").get<double>(), 0.5 * static_cast<double>(i), 0.15);
      const std::string subject = question.id.substr(question.id.rfind('_') + 1);
      EXPECT_EQ(occurrences(document.text, " " + subject + " is "), 4u) << subject;  // and its three distractors
    }
  }
  EXPECT_EQ(ids.size(), 4u);
  // The length alone differs between documents of one number.
  EXPECT_EQ(documents[0].questions[0].gold_answer, documents[2].questions[0].gold_answer);
  EXPECT_NE(documents[0].questions[0].gold_answer, documents[1].questions[0].gold_answer);
  EXPECT_EQ(documents[0].text,
            load_grid({{"lengths", {700, 1500}}, {"depths", {0, 50, 100}}, {"distractors", 3}})[0].text);
}

TEST(NeedleGrid, DepthsAreWhereTheyWereAsked) {
  const Document document =
      load_grid({{"lengths", 4000}, {"depths", {10, 30, 50, 70, 90}}, {"documents", 1}, {"distractors", 16}}).at(0);
  for (const Question& question : document.questions) {
    EXPECT_NEAR(question.extra.at("depth_fraction").get<double>(), question.extra.at("depth_asked").get<double>(),
                0.06);
  }
}

TEST(NeedleGrid, RefusesWhatCannotBe) {
  EXPECT_THAT(grid_error_of({{"lengths", Json::array()}}), HasSubstr("'lengths' must be 1 to 100 lengths; got 0"));
  EXPECT_THAT(grid_error_of({{"lengths", {500, 500}}}), HasSubstr("'lengths' holds 500 twice"));
  EXPECT_THAT(grid_error_of({{"lengths", {10}}}), HasSubstr("'lengths' must be 64 or more; got 10"));
  EXPECT_THAT(grid_error_of({{"depths", {50, 20}}}), HasSubstr("'depths' must rise"));
  EXPECT_THAT(grid_error_of({{"depths", {101}}}), HasSubstr("'depths' must be 0 to 100; got 101"));
  EXPECT_THAT(grid_error_of({{"distractors", 17}}), HasSubstr("'distractors' must be 0 to 16; got 17"));
  EXPECT_THAT(grid_error_of({{"lengths", {100}}, {"distractors", 16}}), HasSubstr("need more than 100 tokens"));
}

TEST(SplitSentences, CutsWhereAReaderWould) {
  EXPECT_THAT(
      split_sentences("Mr. J. Smith left. \"Why?\" she said. He paid 3.50!\n(Twice.) Then\n\nnothing"),
      ElementsAre("Mr. J. Smith left. ", "\"Why?\" she said. ", "He paid 3.50!\n", "(Twice.) ", "Then\n\n", "nothing"));
  EXPECT_TRUE(split_sentences("").empty());
}

TEST(SplitSentences, LosesNothing) {
  for (const Document& article : read_quality_file(kQualitySample)) {
    EXPECT_EQ(fmt::format("{}", fmt::join(split_sentences(article.text), "")), article.text);
    EXPECT_EQ(fmt::format("{}", fmt::join(split_words(article.text), "")), article.text);
    EXPECT_GT(split_sentences(article.text).size(), 80u);
  }
}

}  // namespace
}  // namespace kvc
