#include "harness/tasks/judging/answer_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvc {
namespace {

using Words = std::vector<std::string>;

TEST(AnswerText, WordsAsTheyAreCompared) {
  const std::vector<std::pair<std::string, Words>> cases = {
      {"The Old Man and the Sea!", {"old", "man", "and", "sea"}},
      {"an apple, a day", {"apple", "day"}},
      {"A.", {}},
      {"", {}},
      {"  \n\t", {}},
      {"4,821", {"4821"}},
      {"4,821.50", {"4821.5"}},
      {"1,234,567 ships", {"1234567", "ships"}},
      {"1,2,3", {"1", "2", "3"}},
      {"12,3456", {"12", "3456"}},
      {"3.0", {"3"}},
      {"10", {"10"}},
      {"100.", {"100"}},
      {"007", {"007"}},
      {"-4821", {"-4821"}},
      {"\xE2\x88\x92"
       "5 degrees",
       {"-5", "degrees"}},
      {"pages 12-15", {"pages", "12", "15"}},
      {"well-known", {"well", "known"}},
      {"the dog's bone", {"dogs", "bone"}},
      {"the dog\xE2\x80\x99s bone", {"dogs", "bone"}},
      {"'quoted'", {"quoted"}},
      {"\xE2\x80\x9Cquoted\xE2\x80\x9D", {"quoted"}},
      {"M\xC3\xBCnchen", {"m\xC3\xBCnchen"}},
      {"2nd", {"2nd"}},
      {"...", {}},
  };
  for (const auto& [text, words] : cases) EXPECT_EQ(normalised_words(text), words) << text;
}

TEST(AnswerText, FirstLine) {
  EXPECT_EQ(first_line_of("\n \n  4821.\nmore"), "  4821.");
  EXPECT_EQ(first_line_of(""), "");
  EXPECT_EQ(first_line_of("\n\n"), "");
  EXPECT_EQ(first_line_of("one"), "one");
}

WordOverlap overlap(const std::string& answer, const std::string& gold) {
  return word_overlap(normalised_words(answer), normalised_words(gold));
}

TEST(AnswerText, ExactContainedAndF1) {
  EXPECT_TRUE(overlap("The Eiffel Tower.", "eiffel tower").exact);
  EXPECT_TRUE(overlap("4,821", "4821").exact);
  EXPECT_FALSE(overlap("it is 4821", "4821").exact);
  EXPECT_TRUE(overlap("it is 4821", "4821").contained);
  EXPECT_FALSE(overlap("tower of Eiffel", "Eiffel tower").contained);
  EXPECT_FALSE(overlap("14821", "4821").contained);
  EXPECT_FALSE(overlap("-4821", "4821").contained);
  // precision 2/4, recall 2/3
  EXPECT_DOUBLE_EQ(overlap("one two five six", "two six seven").f1, 2 * (0.5 * 2 / 3) / (0.5 + 2.0 / 3));
  // A word counts as often as it stands in both.
  EXPECT_DOUBLE_EQ(overlap("x x x", "x y").f1, 2 * (1.0 / 3 * 1 / 2) / (1.0 / 3 + 1.0 / 2));
  EXPECT_DOUBLE_EQ(overlap("x", "y").f1, 0);
  EXPECT_DOUBLE_EQ(overlap("", "y").f1, 0);
  EXPECT_FALSE(overlap("", "y").contained);
  EXPECT_FALSE(overlap("y", "the").contained);
  EXPECT_TRUE(overlap("", "the").exact);
  EXPECT_DOUBLE_EQ(overlap("the", "a").f1, 1);
}

}  // namespace
}  // namespace kvc
