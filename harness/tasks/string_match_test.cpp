#include <gtest/gtest.h>

#include "harness/tasks/judging/judge.h"

namespace kvc {
namespace {

std::vector<double> judged(const std::string& text, const std::vector<std::string>& references, bool any) {
  Json answer = {{"text", text}, {"any_reference", any}, {"references", Json::array()}};
  for (const std::string& reference : references) answer["references"].push_back({{"text", reference}});
  const std::vector<Json> answers = {answer};
  const std::string where = "a record";
  return find_task_metrics("string_match")->judge(fields_of(answers, where)).front();
}

// Expected values by RULER's definition: sum of (reference in reply, lower case) over references; the greatest for
// "part".
TEST(StringMatch, CountsReferencesInTheReply) {
  EXPECT_EQ(judged(" 1234567, 7654321.", {"1234567", "7654321"}, false), (std::vector<double>{1, 1}));
  EXPECT_EQ(judged("only 1234567", {"1234567", "7654321"}, false), (std::vector<double>{0.5, 0}));
  EXPECT_EQ(judged("nothing", {"a b", "c d"}, false), (std::vector<double>{0, 0}));
  EXPECT_EQ(judged("it was PARIS.", {"London", "Paris"}, true), (std::vector<double>{1, 1}));
  EXPECT_EQ(judged("Rome", {"London", "Paris"}, true), (std::vector<double>{0, 0}));
  EXPECT_EQ(judged("x11234567", {"1234567"}, false), (std::vector<double>{1, 1}));  // inside a word, as published
  EXPECT_EQ(judged("Caf\u00e9", {"Cafe\u0301"}, true), (std::vector<double>{1, 1}));
}

TEST(StringMatch, ThoughtsAreNoAnswer) {
  EXPECT_EQ(judged("<think>1234567?</think> none", {"1234567"}, false), (std::vector<double>{0, 0}));
}

}  // namespace
}  // namespace kvc
