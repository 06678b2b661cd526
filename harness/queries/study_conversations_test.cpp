// What role A writes, by hand: which starters are in it.
#include "harness/queries/study_conversations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> three(const std::string& text, bool thought = false) {
  return find_starters(study_kind("3_question"), text, thought);
}

TEST(Starters, OfOneQuestionAreAllBehindTheThoughts) {
  const auto one = [](const std::string& text, bool thought) {
    return find_starters(study_kind("question"), text, thought);
  };
  EXPECT_THAT(one("  Who rang the bell?\n", false), ElementsAre("Who rang the bell?"));
  EXPECT_THAT(one("<think>Hm. 1. A bell?</think>\n\nWho rang the bell?\n\nIn June?", true),
              ElementsAre("Who rang the bell?\n\nIn June?"));
  EXPECT_THAT(one("the prompt had opened it</think>Who?", true), ElementsAre("Who?"));
  EXPECT_THAT(one("a</think>b</think>c", false), ElementsAre("b</think>c"));  // the first one ends the thoughts
  EXPECT_THAT(one("<think>thoughts only</think>\n  ", true), IsEmpty());
  EXPECT_THAT(one(" \n", false), IsEmpty());
  EXPECT_THAT(one("", false), IsEmpty());
  // Thoughts that were cut off are no question.
  EXPECT_THAT(one("<think>I could ask who", false), IsEmpty());
  EXPECT_THAT(one("I could ask who", true), IsEmpty());
}

TEST(Starters, AreCutAtRulesFirst) {
  EXPECT_THAT(three("1. Who?\n---\n2. Where?\n\nIn a lake?\n  -----  \n3. When?"),
              ElementsAre("1. Who?", "2. Where?\n\nIn a lake?", "3. When?"));
  EXPECT_THAT(three("---\nWho?\n---\n---\nWhere?\n---"), ElementsAre("Who?", "Where?"));
  EXPECT_THAT(three("Who?\n--\nWhere?"), ElementsAre("Who?\n--\nWhere?"));  // two dashes are no rule
}

TEST(Starters, AreCutAtNumbersElse) {
  EXPECT_THAT(three("1. Who?\n   A) Mara\n\n   B) Tom\n2) Where?\n10. When?"),
              ElementsAre("1. Who?\n   A) Mara\n\n   B) Tom", "2) Where?", "10. When?"));
  EXPECT_THAT(three("Was it 3. or\n4 others?"), ElementsAre("Was it 3. or\n4 others?"));  // none begins a line so
  EXPECT_THAT(three("<think>1. no\n2. no</think>1. Who?\n2. Where?", true), ElementsAre("1. Who?", "2. Where?"));
}

TEST(Starters, AreCutAtEmptyLinesLast) {
  EXPECT_THAT(three("Who?\nMara or Tom?\n\n\nWhere?\n \t\nWhen?"),
              ElementsAre("Who?\nMara or Tom?", "Where?", "When?"));
  EXPECT_THAT(three("Who?\nWhere?"), ElementsAre("Who?\nWhere?"));
  EXPECT_THAT(three("Who?\r\n\r\nWhere?"), ElementsAre("Who?", "Where?"));
}

TEST(Starters, AnAnnouncementIsNone) {
  EXPECT_THAT(three("Here are 3 questions:\n\n1. Who?\n2. Where?\n3. When?"),
              ElementsAre("1. Who?", "2. Where?", "3. When?"));
  EXPECT_THAT(three("Here are 3 questions:\n\nWho?\n\nWhere?"), ElementsAre("Who?", "Where?"));
  EXPECT_THAT(three("Which is right, A or B?:\n\nWhere?"), ElementsAre("Which is right, A or B?:", "Where?"));
  EXPECT_THAT(three("Questions:"), ElementsAre("Questions:"));  // nothing else is there
}

TEST(Starters, QuestionsAndOptionsInTurnAreJoined) {
  EXPECT_THAT(three("Who?\n\nA) Mara B) Tom\n\nWhere?\n\nA. here B. there\n\nWhen?\n\nA) now"),
              ElementsAre("Who?\n\nA) Mara B) Tom", "Where?\n\nA. here B. there", "When?\n\nA) now"));
  // Up to five pieces stay as they are.
  EXPECT_THAT(three("Who?\n\nA) Mara\n\nWhere?\n\nA) here"), ElementsAre("Who?", "A) Mara", "Where?", "A) here"));
  EXPECT_THAT(three("a?\n\nb?\n\nc?\n\nd?\n\ne?"), ElementsAre("a?", "b?", "c?", "d?", "e?"));
  // Six that are no pairs, seven, and six pairs are too many.
  EXPECT_THAT(three("a?\n\nb?\n\nc?\n\nd?\n\ne?\n\nf?"), IsEmpty());
  EXPECT_THAT(three("a?\n\nA) b\n\nc?\n\nA) d\n\ne?\n\nA) f\n\ng?"), IsEmpty());
  std::string pairs;
  for (int i = 0; i < 6; ++i) pairs += "q?\n\nA) x\n\n";
  EXPECT_THAT(three(pairs), IsEmpty());
}

TEST(StudyKinds, AreThoseOfThePaper) {
  EXPECT_THAT(study_kind_names(), ElementsAre("question", "3_question", "repeat", "summarize", "summarize_backward",
                                              "structure_json", "structure_yaml", "aggregate", "rephrase"));
  for (const StudyKind& kind : study_kinds()) {
    EXPECT_EQ(kind.made_up, kind.name == "question" || kind.name == "3_question");
    EXPECT_EQ(kind.thinks, kind.made_up);
    EXPECT_EQ(kind.repeats, kind.name == "repeat");
    EXPECT_EQ(kind.most_tokens, kind.repeats ? 0 : kind.made_up ? 4096 : kind.name == "rephrase" ? 8192 : 2048);
    EXPECT_FALSE(kind.prompt.empty());
  }
}

}  // namespace
}  // namespace kvc
