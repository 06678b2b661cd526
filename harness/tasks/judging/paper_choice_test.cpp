#include "harness/tasks/judging/paper_choice.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace kvc {
namespace {

constexpr int64_t kNone = -1;

struct Case {
  const char* text;
  int64_t n_options;
  int64_t expected;  // option from 0, or kNone
};

class PaperChoice : public ::testing::TestWithParam<Case> {};

TEST_P(PaperChoice, FollowsTheRules) {
  EXPECT_EQ(paper_choice(GetParam().text, GetParam().n_options).value_or(kNone), GetParam().expected)
      << GetParam().text;
}

INSTANTIATE_TEST_SUITE_P(ThinkTags, PaperChoice,
                         ::testing::Values(Case{"<think>I say B. Answer: B", 4, kNone},
                                           Case{"<think>A</think>\n\nC", 4, 2}, Case{"</think>", 4, kNone},
                                           Case{"Answer: A</think>", 4, kNone},
                                           Case{"<think>A</think>B</think> D.", 4, 3}, Case{"thought</think>B", 4, 1},
                                           Case{"<think>x</think>\nThe answer is C.\nThat is it", 4, 2}));

INSTANTIATE_TEST_SUITE_P(LastLine, PaperChoice,
                         ::testing::Values(Case{"A\nB\nC\n\n  \n", 4, 2}, Case{"Answer: A\nDunno", 4, kNone},
                                           Case{"", 4, kNone}, Case{" \n ", 4, kNone},
                                           Case{"some thought\r\nB\r\n", 4, 1}));

INSTANTIATE_TEST_SUITE_P(Patterns, PaperChoice,
                         ::testing::Values(Case{"The answer is about courage", 4, 0}, Case{"Answer: **E**", 5, 4},
                                           Case{"Answer: **E**", 4, kNone}, Case{"**Answer:** B", 4, 1},
                                           Case{"Answer: A, no, answer: B", 4, 1}, Case{"the answer is: C", 4, 2},
                                           Case{"The correct option is D.", 4, 3}, Case{"ANSWER:B", 4, 1},
                                           Case{"answer is B, so answer: C", 4, 2}, Case{"The answer is **A**.", 4, 0},
                                           Case{"Answer: the correct option is B", 4, 1}, Case{"Answer: (C)", 4, 2},
                                           Case{"answer:", 4, kNone}, Case{"Answer: ::B", 4, 1}));

INSTANTIATE_TEST_SUITE_P(Letters, PaperChoice,
                         ::testing::Values(Case{"C", 4, 2}, Case{"c.", 4, 2}, Case{"**C**", 4, 2},
                                           Case{"**C. text**", 4, 2}, Case{"C. A text that names D", 4, 2},
                                           Case{"b)", 4, kNone}, Case{"(C)", 4, 2}, Case{"I am unsure", 4, kNone},
                                           Case{"Option A or C", 4, 2}, Case{"E", 4, kNone}, Case{"E", 5, 4},
                                           Case{"Because", 4, kNone}, Case{"C\xC3\xA9zanne", 4, kNone},
                                           Case{"\xE2\x80\x9C"
                                                "C\xE2\x80\x9D",
                                                4, 2},
                                           Case{"\xC3\x89"
                                                "A",
                                                4, kNone},
                                           Case{"B2", 4, 1}, Case{"a", 4, 0}, Case{"a dog", 4, kNone}));

// Answers that real models gave, judged by an independent implementation of the same rules.
TEST(PaperChoiceGolden, AgreesOnRealAnswers) {
  std::ifstream file(KVC_SOURCE_DIR "/harness/testing/golden/answers.json");
  ASSERT_TRUE(file);
  const nlohmann::json golden = nlohmann::json::parse(file);
  ASSERT_GE(golden.at("answers").size(), 100u);
  for (const auto& answer : golden.at("answers")) {
    for (const int64_t n_options : {4, 5}) {
      const auto& expected = answer.at(n_options == 4 ? "of_4" : "of_5");
      EXPECT_EQ(paper_choice(answer.at("text"), n_options).value_or(kNone),
                expected.is_null() ? kNone : expected.get<int64_t>())
          << answer.at("model") << " " << answer.at("question_id") << " of " << n_options;
    }
  }
}

}  // namespace
}  // namespace kvc
