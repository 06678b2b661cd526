#include "harness/tasks/judging/thought.h"

#include <gtest/gtest.h>

namespace kvc {
namespace {

TEST(Thought, IsNoPartOfTheAnswer) {
  EXPECT_EQ(without_thoughts("4821", false), "4821");
  EXPECT_EQ(without_thoughts("<think>\n\n</think>\n\n4821.", false), "\n\n4821.");
  EXPECT_EQ(without_thoughts("Okay, 4821 comes to mind, but no.</think>\n\n17", true), "\n\n17");
  EXPECT_EQ(without_thoughts("Okay, 4821 comes to mind, but no.</think>\n\n17", false), "\n\n17");
  EXPECT_EQ(without_thoughts("<think>a</think>b</think>c", false), "c");
  // Unfinished, whether the model or its prompt had opened it.
  EXPECT_EQ(without_thoughts("<think>It could be B", false), "");
  EXPECT_EQ(without_thoughts("Let me look. It could be B, or perhaps not; next I check", true), "");
  EXPECT_EQ(without_thoughts("B <think>or C", false), "B ");
  EXPECT_EQ(without_thoughts("<think>a</think>B<think>or C", false), "B");
  EXPECT_EQ(without_thoughts("", true), "");
}

TEST(Thought, TheRecordSaysHowThePromptEnded) {
  const std::string where = "record";
  const auto opened = [&](const Json& fields) {
    const std::vector<Json> answers = {fields};
    return prompt_opens_thought(AnswerFields(answers, 0, where));
  };
  EXPECT_FALSE(opened({{"text", "B"}}));
  EXPECT_TRUE(opened({{"text", "B"}, {"prompt_opens_thought", true}}));
  EXPECT_FALSE(opened({{"rendered_prompt", "<think>"}, {"prompt_opens_thought", false}}));
  // Records of older programs.
  EXPECT_TRUE(opened({{"rendered_prompt", "<|im_start|>assistant\n<think>\n"}}));
  EXPECT_FALSE(opened({{"rendered_prompt", "<|im_start|>assistant\n<think>\n\n</think>\n\n"}}));
  EXPECT_FALSE(opened({{"rendered_prompt", "What does <think> mean?<|im_end|>\n<|im_start|>assistant\n"}}));
  EXPECT_FALSE(opened({{"rendered_prompt", ""}}));
}

}  // namespace
}  // namespace kvc
