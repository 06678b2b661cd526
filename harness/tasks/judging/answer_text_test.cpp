#include "harness/tasks/judging/answer_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvc {
namespace {

// Plain ASCII is read by a shorter way; a letter of another script behind it sends the same text the long way.
TEST(AnswerWords, AsciiIsReadAsAllElse) {
  std::uint64_t state = 7;
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 40; ++i) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      const char other = static_cast<char>((state >> 40) % 127 + 1);
      text += (state >> 33) % 3 == 0 ? other : "aThe 4821,.-'\n:1"[(state >> 50) % 17];
    }
    std::vector<std::string> longer = normalised_words(text + " \u00DF \u00DF");
    ASSERT_GE(longer.size(), 2U);
    longer.resize(longer.size() - 2);
    std::vector<std::string> plain = normalised_words(text);
    if (longer.empty()) plain.clear();  // nothing but articles: they count where there is nothing else
    EXPECT_EQ(plain, longer) << text;
  }
}

struct Match {
  const char* answer;
  const char* gold;
  bool expected;
};

class ExactMatch : public ::testing::TestWithParam<Match> {};

TEST_P(ExactMatch, WantsTheWholeGold) {
  EXPECT_EQ(exact_match(GetParam().answer, GetParam().gold), GetParam().expected) << GetParam().answer;
}

INSTANTIATE_TEST_SUITE_P(
    Numbers, ExactMatch,
    ::testing::Values(Match{" 4821.", "4821", true}, Match{"4821", "4821", true}, Match{"**4821**", "4821", true},
                      Match{"It is \"4821\"!", "4821", true}, Match{"4821, I think", "4821", true},
                      Match{"14821", "4821", false}, Match{"48210", "4821", false}, Match{"4821.5", "4821", false},
                      Match{"1.4821", "4821", false}, Match{"4,821", "4821", true}, Match{"4821,000", "4821", false},
                      Match{"12-4821", "4821", false}, Match{"-4821", "4821", false}, Match{".4821", "4821", false},
                      Match{"A-4821", "4821", true}, Match{"x4821", "4821", false}, Match{"4821b", "4821", false},
                      Match{"", "4821", false}, Match{"14821 or 4821", "4821", true}, Match{"no. 4821", "4821", true},
                      Match{"4 8 2 1", "4821", false}));

INSTANTIATE_TEST_SUITE_P(FirstSentence, ExactMatch,
                         ::testing::Values(Match{"1234. The secret code is 4821.", "4821", false},
                                           Match{"\n\n4821\n1234", "4821", true},
                                           Match{"It is No. 4821.", "4821", true}, Match{"1234. 4821", "4821", false},
                                           Match{"1234\n4821", "4821", false}, Match{"Yes! 4821 it is", "4821", false},
                                           Match{"The Blue House.", "blue house", true},
                                           Match{"The bluest", "blue", false}, Match{"anything", "", false},
                                           Match{"caf\xC3\xA9s", "caf", false}));

INSTANTIATE_TEST_SUITE_P(
    Values, ExactMatch,
    ::testing::Values(Match{"It is 4,821.", "4821", true}, Match{"4821.0", "4821", true}, Match{"4821", "4,821", true},
                      Match{"4\u00A0821", "4821", true}, Match{"\uFF14\uFF18\uFF12\uFF11", "4821", true},
                      Match{"\u22125", "-5", true}, Match{"-5", "5", false}, Match{"4,821,000", "4821", false},
                      Match{"4821.50", "4821.5", true}, Match{"007", "7", false}, Match{"$4,821", "4821", true},
                      Match{"4821%", "4821", true}, Match{"(4821)", "4821", true}, Match{"3.4.4821", "4821", false},
                      Match{"4821/7", "4821", false}, Match{"4821-4822", "4821", false},
                      Match{"1821, 4821", "4821", true}, Match{"4821\u5E74", "4821", true}));

INSTANTIATE_TEST_SUITE_P(
    Denied, ExactMatch,
    ::testing::Values(Match{"not 4821", "4821", false}, Match{"It is not 4821.", "4821", false},
                      Match{"It isn't 4821", "4821", false}, Match{"It isn\u2019t the number 4821", "4821", false},
                      Match{"It is 17, not 4821.", "4821", false}, Match{"It is 4821, not 17.", "4821", true},
                      Match{"Not 17 but 4821", "4821", true}, Match{"4821 is not the code", "4821", false},
                      Match{"4821 is wrong", "4821", false}, Match{"I don't think it is 4821", "4821", false},
                      Match{"It is 17 rather than 4821", "4821", false}, Match{"I am not sure, but 4821", "4821", true},
                      Match{"The code that must not be shared is 4821.", "4821", true},
                      Match{"No, it is 4821", "4821", true}, Match{"not guilty", "guilty", false},
                      Match{"not guilty", "not guilty", true}, Match{"not 4821, it is 4821", "4821", true}));

INSTANTIATE_TEST_SUITE_P(
    Abbreviations, ExactMatch,
    ::testing::Values(Match{"St. Louis", "St. Louis", true}, Match{"In St. Louis, by the river.", "Louis", true},
                      Match{"Dr. Smith did it.", "Dr. Smith", true}, Match{"Mr. Smith", "Smith", true},
                      Match{"J. K. Rowling wrote it.", "Rowling", true}, Match{"The U.S. Army", "army", true},
                      Match{"Ruritania Ltd. Paris", "Ruritania Ltd. Paris", true}, Match{"1. Paris", "Paris", true},
                      Match{"It was Smith's.", "Smith", true}, Match{"The dog's bone", "dogs", true},
                      Match{"The code is:\n4821", "4821", true}, Match{"**Code:**\n\n4821", "4821", true},
                      Match{"It is Jan. 5", "5", true}));

INSTANTIATE_TEST_SUITE_P(Scripts, ExactMatch,
                         ::testing::Values(Match{"МОСКВА", "Москва", true}, Match{"ÉLISE MÜLLER", "Élise Müller", true},
                                           Match{"E\u0301lise", "\u00C9lise", true},
                                           Match{"the dog\u2019s bone", "dog's bone", true},
                                           Match{"北京。", "北京", true}, Match{"答案是北京。", "北京", true},
                                           Match{"北京。上海", "上海", false}, Match{"«Paris»", "Paris", true},
                                           Match{"Paris…", "Paris", true}, Match{"„Paris“", "Paris", true},
                                           Match{"который", "кот", false}, Match{"кот", "кот", true},
                                           Match{"STRASSE", "Straße", true}, Match{"गाँव।", "गाँव", true},
                                           Match{"القاهرة؟", "القاهرة", true}, Match{"Ελλάδα.", "ΕΛΛΆΔΑ", true},
                                           Match{"Pa\u00ADris", "Paris", true}, Match{"\xFF\xFE Paris", "Paris", true},
                                           Match{"東京です", "東京", true}, Match{"naïve", "naive", false}));

using Words = std::vector<std::string>;

TEST(AnswerText, WordsAsTheyAreCompared) {
  const std::vector<std::pair<std::string, Words>> cases = {
      {"The Old Man and the Sea!", {"old", "man", "and", "sea"}},
      {"an apple, a day", {"apple", "day"}},
      {"A.", {"a"}},
      {"the A", {"the", "a"}},
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
  EXPECT_FALSE(overlap("", "the").exact);
  EXPECT_DOUBLE_EQ(overlap("the", "a").f1, 0);
}

}  // namespace
}  // namespace kvc
