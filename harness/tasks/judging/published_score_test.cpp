#include "harness/tasks/judging/published_score.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "harness/core/error.h"
#include "harness/tasks/judging/rouge.h"
#include "harness/tasks/judging/sequence_ratio.h"

namespace kvc {
namespace {

// harness/testing/golden/published_scores.json: what public Python packages score (scripts/golden/published_scores.py).
TEST(PublishedScore, IsThatOfThePythonPackages) {
  std::ifstream file(KVC_SOURCE_DIR "/harness/testing/golden/published_scores.json");
  ASSERT_TRUE(file);
  const nlohmann::json golden = nlohmann::json::parse(file);
  EXPECT_GE(golden.at("cases").size(), 350U);
  for (const nlohmann::json& c : golden.at("cases")) {
    const std::string rule = c.at("rule"), answer = c.at("answer");
    EXPECT_NEAR(published_score(rule, answer, c.at("references")), c.at("score").get<double>(), 1e-9)
        << rule << "\n  answer    " << answer << "\n  reference " << c.at("references").dump();
  }
}

TEST(PublishedScore, TheBestReferenceCounts) {
  EXPECT_EQ(published_score("f1", "the old mill", {"river", "old mill"}), 1);
  EXPECT_EQ(published_score("f1", "the old mill", {}), 0);
  EXPECT_EQ(published_score("f1", "\n\nmill\nriver", {"mill"}, {}, true), 1);
  EXPECT_LT(published_score("f1", "\n\nmill\nriver", {"mill"}), 1);
}

TEST(PublishedScore, ClassesAsLongBenchCountsThem) {
  const std::vector<std::string> classes = {"Date", "Number", "Other number", "City"};
  const auto score = [&](const std::string& answer, const std::string& gold) {
    return published_score("classification", answer, {gold}, classes);
  };
  EXPECT_EQ(score("Type: City", "City"), 1);
  EXPECT_EQ(score("City or Date", "City"), 0.5);
  EXPECT_EQ(score("no idea", "City"), 0);
  EXPECT_EQ(score("Date", "City"), 0);
  // "number" is no part of "Other number" by its letter case; a part of the right name is taken out.
  EXPECT_EQ(published_score("classification", "Other Number", {"Other Number"}, {"Number", "Other Number"}), 1);
}

TEST(PublishedScore, InfiniteBenchsRules) {
  EXPECT_EQ(published_score("first_integer", "The key is 71432.", {"71432"}), 1);
  EXPECT_EQ(published_score("first_integer", "71 432", {"71432"}), 0);
  EXPECT_EQ(published_score("first_integer", "none", {"71432"}), 0);
  EXPECT_EQ(published_score("first_number", "It is 3.50", {"3.5"}), 1);
  EXPECT_EQ(published_score("first_number", "It is 12, not 13", {"12"}), 1);
  EXPECT_EQ(published_score("first_number", "12.5", {"12"}), 0);
  EXPECT_EQ(published_score("last_integer", "The value is: -4.", {"-4"}), 1);
  EXPECT_EQ(published_score("last_integer", "-4 it is", {"-4"}), 0);
  EXPECT_EQ(published_score("word", "{\"key\": \"ab-12\"}", {"ab-12"}), 1);
  EXPECT_EQ(published_score("word", "ab-123", {"ab-12"}), 0);
  EXPECT_EQ(published_score("capitals", "it is Anna.", {"ANNA", "BOB"}), 1);
  EXPECT_EQ(published_score("capitals", "Bob", {"ANNA", "BOB"}), 0);
  EXPECT_EQ(published_score("leading_numbers", "[3, 7, 9]", {"[3, 7, 10, 4]"}), 0.5);
}

TEST(PublishedScore, LooglesBlanks) {
  const std::string gold = R"({"<mask-0>": "Bob", "<mask-1>": "Oslo"})";
  EXPECT_EQ(published_score("cloze", "Answer: {'<mask-0>': 'Bob', '<mask-1>': 'Rome'}", {gold}), 0.5);
  EXPECT_EQ(published_score("cloze", gold, {gold}), 1);
  EXPECT_EQ(published_score("cloze", "Bob and Oslo", {gold}), 0);
  EXPECT_EQ(published_score("cloze", "{'<mask-0>': 'Bob'", {gold}), 0);
}

TEST(PublishedScore, RefusesAnUnknownRule) {
  EXPECT_FALSE(is_score_rule("bleu"));
  EXPECT_THROW(published_score("bleu", "a", {"a"}), Error);
}

TEST(PublishedScore, HostileTextsEnd) {
  std::string text;
  while (text.size() < 20'000) text += "a {'b': ";
  for (const char* rule : {"f1", "rouge_l", "rouge_l_sum", "code_edit", "cloze", "word", "leading_numbers"})
    published_score(rule, text, {text.substr(0, 2000)});
}

}  // namespace
}  // namespace kvc
