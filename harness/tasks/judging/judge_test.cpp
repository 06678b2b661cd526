#include "harness/tasks/judging/judge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/testing/checks.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

std::vector<double> never(const AnswerFields& /*answer*/) {
  return {};
}

KVC_REGISTER_METRICS("judge_test", one_by_one<never>, {{"accuracy", "accuracy", true, true}});

TEST(Judge, HalfRightIsNotRight) {
  EXPECT_FALSE(is_right(0.5));  // two orders of the options, one answered right
  EXPECT_TRUE(is_right(2.0 / 3));
}

TEST(Judge, MetricsAreFoundByTheTasksName) {
  ASSERT_NE(find_task_metrics("judge_test"), nullptr);
  EXPECT_EQ(find_task_metrics("judge_test")->metrics.at(0).name, "accuracy");
  EXPECT_EQ(find_task_metrics("another"), nullptr);
}

TEST(Judge, FieldsAreCheckedAndNamed) {
  const std::string where = "record of cell c, document 'd'";
  const std::vector<Json> answers = {
      {{"text", 1}, {"number", "1"}, {"flag", 1}, {"part", {{{"n", 0.5}}}}, {"stop_reason", "stop"}}, {{"text", "b"}}};
  const AnswerFields answer(answers, 0, where);
  EXPECT_THAT(error_of([&] { answer.text("text"); }), HasSubstr("field 'text' of answer 0 must be a text"));
  EXPECT_THAT(error_of([&] { answer.text("text"); }), HasSubstr(where));
  EXPECT_THAT(error_of([&] { answer.number("number"); }), HasSubstr("must hold finite numbers; got \"1\""));
  EXPECT_THAT(error_of([&] { answer.number("none"); }), HasSubstr("field 'none' of answer 0 is missing"));
  EXPECT_THAT(error_of([&] { answer.flag("flag", false); }), HasSubstr("must be true or false"));
  EXPECT_TRUE(answer.flag("none", true));
  EXPECT_THAT(error_of([&] { answer.cut_by_length(); }), HasSubstr("must be 'end' or 'length'; got 'stop'"));
  EXPECT_THAT(error_of([&] { answer.parts("part")[0].integer("n", 0); }), HasSubstr("must be an integer"));
  ASSERT_EQ(fields_of(answers, where).size(), 2U);
  EXPECT_EQ(fields_of(answers, where)[1].text("text"), "b");
}

}  // namespace
}  // namespace kvc
