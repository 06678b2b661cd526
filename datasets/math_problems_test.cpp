#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "harness/api/dataset.h"
#include "harness/testing/checks.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<Document> load(const std::string& name, const Json& options) {
  return Registry<Dataset>::instance().create(name, options)->load({1, {}});
}

std::string error_of(const std::string& name, const std::string& content, Json options = Json::object()) {
  const TemporaryFolder folder;
  options["path"] = folder.write("file", content);
  return kvc::error_of(ErrorKind::kData, [&] { load(name, options); });
}

TEST(Gsm8k, TakesTheNumberBehindTheMark) {
  const std::vector<Document> documents = load("gsm8k", {});
  ASSERT_EQ(documents.size(), 4u);
  EXPECT_EQ(documents[0].questions.at(0).gold_answer, "81");
  EXPECT_EQ(documents[1].questions.at(0).gold_answer, "1500");  // "1,500"
  EXPECT_EQ(documents[2].questions.at(0).gold_answer, "1.75");
  EXPECT_EQ(documents[3].questions.at(0).gold_answer, "-5");
  EXPECT_EQ(documents[0].questions.at(0).extra.at("answer_form"), "math");
  EXPECT_THAT(documents[0].text, ::testing::Not(HasSubstr("####")));
  EXPECT_EQ(load("gsm8k", {{"problems", 2}}).size(), 2u);
}

TEST(Gsm8k, ExplainsBrokenFiles) {
  for (const std::string answer : {"18", "#### ", "#### eighteen", "#### 1.2.3", "#### -"}) {
    EXPECT_THAT(error_of("gsm8k", R"({"question":"q","answer":")" + answer + "\"}"),
                AllOf(HasSubstr("'answer' must end in \"#### \" and a number"), HasSubstr(":1, answer")))
        << answer;
  }
  EXPECT_THAT(error_of("gsm8k", R"({"answer":"#### 1"})"), HasSubstr("'question' is missing"));
  EXPECT_THAT(error_of("gsm8k", R"({"question":"q","answer":18})"), HasSubstr("'answer' must be text; got 18"));
  const std::string line = R"({"question":"q","answer":"#### 1"})";
  EXPECT_THAT(error_of("gsm8k", line + "\n" + line), HasSubstr("duplicate problem 'q', first in line 1"));
  EXPECT_THAT(error_of("gsm8k", "\n"), HasSubstr("the file has no line of data"));
}

TEST(Math500, ReadsThePublishedForm) {
  const std::vector<Document> documents = load("math500", {});
  ASSERT_EQ(documents.size(), 5u);
  EXPECT_EQ(documents[0].id, "own/1.json");
  EXPECT_EQ(documents[1].questions.at(0).gold_answer, "3,-3");
  EXPECT_EQ(documents[1].questions.at(0).extra, (Json{{"answer_form", "math"}, {"subject", "Algebra"}, {"level", 2}}));
  EXPECT_EQ(load("math500", {{"levels", {3}}}).size(), 2u);
  EXPECT_EQ(load("math500", {{"subjects", {"Algebra", "Geometry"}}, {"levels", {2}}}).size(), 1u);
}

TEST(Math500, ExplainsBrokenFiles) {
  EXPECT_THAT(error_of("math500", R"({"problem":"p"})"), HasSubstr("'answer' is missing"));
  EXPECT_THAT(error_of("math500", R"({"problem":"p","answer":5})"), HasSubstr("'answer' must be text; got 5"));
  EXPECT_THAT(error_of("math500", R"({"problem":"p","answer":"5","level":7})"),
              HasSubstr("'level' must be 1 to 5; got 7"));
  EXPECT_EQ(error_of("math500", R"({"problem":"p","answer":"5","level":"Level 3"})", {{"levels", {3}}}), "no error");
  EXPECT_THAT(error_of("math500", R"({"problem":"p","answer":"5","level":3})", {{"levels", {4}}}),
              HasSubstr("the file has nothing with '4'"));
  EXPECT_THAT(
      error_of("math500", R"({"problem":"p","answer":"5","subject":"Algebra"})", {{"subjects", {"Algebra", "Algebr"}}}),
      AllOf(HasSubstr("the file has nothing with 'Algebr'"), HasSubstr("did you mean 'Algebra'?")));
  const std::string line = R"({"problem":"p","answer":"5","unique_id":"a"})";
  EXPECT_THAT(error_of("math500", line + "\n" + R"({"problem":"r","answer":"5","unique_id":"a"})"),
              HasSubstr("duplicate document id 'a', first in line 1"));
}

}  // namespace
}  // namespace kvc
