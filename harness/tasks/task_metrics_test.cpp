// What each task's stored answers are worth, as its own file registers it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/api/task.h"
#include "harness/tasks/judging/judge.h"
#include "harness/testing/checks.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// The values of answer `index` of a record that holds `answers`.
std::vector<double> judged(const std::string& task, const std::vector<Json>& answers, size_t index = 0) {
  static const std::string where = "record of cell c, document 'd'";
  return find_task_metrics(task)->judge(fields_of(answers, where)).at(index);
}

std::string error_of(const std::string& task, const Json& answer) {
  return kvc::error_of([&] { judged(task, {answer}); });
}

TEST(TaskMetrics, EveryTaskHasThemAndNobodyElse) {
  for (const auto& [task, entry] : Registry<Task>::instance().entries()) {
    const TaskMetrics* found = find_task_metrics(task);
    ASSERT_NE(found, nullptr) << task;
    ASSERT_FALSE(found->metrics.empty()) << task;
    for (const MetricInfo& metric : found->metrics) EXPECT_FALSE(metric.name.empty() || metric.title.empty()) << task;
  }
  EXPECT_EQ(find_task_metrics("no_such_task"), nullptr);
  EXPECT_THAT(kvc::error_of([&] { register_task_metrics("likelihood", {}); }),
              HasSubstr("two tasks register metrics under the name 'likelihood'"));
}

TEST(TaskMetrics, LikelihoodByTokenAndRaw) {
  const Json answer = {
      {"question_id", "q"}, {"gold_option", 1}, {"option_log_likelihood", {-4.0, -6.0}}, {"option_tokens", {2, 6}}};
  // No value without scores behind the neutral document, as in records of older programs.
  EXPECT_THAT(judged("likelihood", {answer}), ElementsAre(1, 0, ::testing::IsNan()));
}

TEST(TaskMetrics, LikelihoodCalibrated) {
  Json answer = {{"question_id", "q"},
                 {"gold_option", 1},
                 {"option_log_likelihood", {-4.0, -6.0}},
                 {"option_log_likelihood_neutral", {-5.0, -9.0}},
                 {"option_tokens", {2, 2}}};
  EXPECT_THAT(judged("likelihood", {answer}), ElementsAre(0, 0, 1));
  answer["option_log_likelihood_neutral"] = {-8.0, -9.0};
  EXPECT_THAT(judged("likelihood", {answer}), ElementsAre(0, 0, 0));
  answer["option_log_likelihood_neutral"] = {-8.0};
  EXPECT_THAT(error_of("likelihood", answer), HasSubstr("has 1 entries for 2 options"));
}

Json turned(const std::string& text, int shift, const std::string& stop = "end") {
  return {{"text", text}, {"stop_reason", stop}, {"shift", shift}};
}

TEST(TaskMetrics, RotationsAreMappedBackAndAveraged) {
  // Right: option 1 of 3. In order 1 it is letter A, in order 2 letter C.
  Json answer = {{"question_id", "q"}, {"gold_option", 1}, {"n_options", 3}};
  answer["rotations"] = {turned("The answer is: B", 0), turned("The answer is: A", 1), turned("The answer is: C", 2)};
  EXPECT_THAT(judged("multiple_choice", {answer}), ElementsAre(1, 1, 1, 0));
  answer["rotations"] = {turned("The answer is: B", 0), turned("The answer is: B", 1), turned("hmm", 2, "length"),
                         turned("The answer is: B", 2)};
  EXPECT_THAT(judged("multiple_choice", {answer}), ElementsAre(0.25, 0.25, 0.75, 0.25));
  answer["rotations"] = {turned("B", 3)};
  EXPECT_THAT(error_of("multiple_choice", answer), HasSubstr("is 3 with 3 options"));
  answer["rotations"] = Json::array();
  EXPECT_THAT(error_of("multiple_choice", answer), HasSubstr("'rotations' of answer 0 must be a list"));
}

TEST(TaskMetrics, MultipleChoiceCountsUnreadableAnswersAsWrong) {
  const Json right = {
      {"question_id", "a"}, {"gold_option", 1}, {"n_options", 4}, {"text", "The answer is: B"}, {"stop_reason", "end"}};
  const Json unreadable = {
      {"question_id", "b"}, {"gold_option", 1}, {"n_options", 4}, {"text", "hmm"}, {"stop_reason", "length"}};
  EXPECT_THAT(judged("multiple_choice", {right, unreadable}), ElementsAre(1, 1, 1, 0));
  EXPECT_THAT(judged("multiple_choice", {right, unreadable}, 1), ElementsAre(0, 0, 0, 1));
}

Json written(const std::string& text, const std::string& gold, const std::string& stop = "end") {
  return {{"question_id", "q"}, {"gold_answer", gold}, {"text", text}, {"stop_reason", stop}};
}

TEST(TaskMetrics, ExactMatch) {
  EXPECT_THAT(judged("exact_match", {written(" 4821.", "4821", "length")}),
              ElementsAre(1, ::testing::IsNan(), 1, 1, 1, 1));
  EXPECT_THAT(judged("exact_match", {written("The code is 17. No: 4,821.\nOr 3.", "4821")}),
              ElementsAre(0, ::testing::IsNan(), 0, 1, 2.0 / (5 + 1), 0));
}

// A method that says one thing to every question of a document finds nothing.
// SQuAD's rule (arXiv:1606.05250): the right answer that fits best counts, in every measure and every free task.
TEST(TaskMetrics, AnyOfSeveralRightAnswersIsRight) {
  const auto answer = [](const std::string& text, const std::vector<std::string>& others) {
    Json json = {{"question_id", "q"}, {"gold_answer", "NYC"}, {"text", text}, {"stop_reason", "end"}, {"turn", 1}};
    if (!others.empty()) json["other_answers"] = others;
    return json;
  };
  const std::vector<std::string> others = {"New York City", "the Big Apple"};
  EXPECT_THAT(judged("exact_match", {answer("New York City", others)}), ElementsAre(1, ::testing::IsNan(), 1, 1, 1, 0));
  EXPECT_THAT(judged("exact_match", {answer("It is the Big Apple.", others)}),
              ElementsAre(1, ::testing::IsNan(), 0, 1, ::testing::DoubleNear(2.0 * 2 / (4 + 2), 1e-12), 0));
  EXPECT_EQ(judged("exact_match", {answer("New York City", {})}).front(), 0);  // a record of before
  EXPECT_EQ(judged("turns", {answer("The Big Apple", others)}).front(), 1);
  EXPECT_EQ(judged("turns", {answer("Boston", others)}).front(), 0);
  EXPECT_THAT(
      error_of(
          "exact_match",
          {{"question_id", "q"}, {"gold_answer", "a"}, {"other_answers", "b"}, {"text", ""}, {"stop_reason", "end"}}),
      HasSubstr("other_answers"));

  // A reply to another question that gives any right answer of this one is no find; questions that share a right answer
  // say nothing.
  Json boston = answer("Big Apple", {}), shared = answer("Big Apple", {"York"});
  boston["gold_answer"] = "Boston";
  EXPECT_EQ(judged("exact_match", {answer("Big Apple", others), boston})[1], 0);
  EXPECT_TRUE(std::isnan(judged("exact_match", {answer("Big Apple", others), shared})[1]));

  Json sample = {{"text", "</think>\n\nFinal Answer: 12"},
                 {"stop_reason", "end"},
                 {"compactions", Json::array()},
                 {"thought_tokens", 1}};
  Json problem = {{"question_id", "q"}, {"gold_answer", "7"}, {"other_answers", {"12"}}, {"samples", {sample}}};
  EXPECT_EQ(judged("reasoning", {problem}).front(), 1);
  problem["other_answers"] = {"13"};
  EXPECT_EQ(judged("reasoning", {problem}).front(), 0);
}

TEST(TaskMetrics, ACodeThatIsGivenToOtherQuestionsTooIsNoFind) {
  const std::vector<Json> constant = {written("4821", "4821"), written("It is 4,821.", "17"), written("99", "99")};
  EXPECT_EQ(judged("exact_match", constant, 0)[0], 1);
  EXPECT_EQ(judged("exact_match", constant, 0)[1], 0);
  EXPECT_EQ(judged("exact_match", constant, 1)[1], 0);
  EXPECT_EQ(judged("exact_match", constant, 2)[1], 1);
  // Two questions with the same right answer may both get it.
  const std::vector<Json> same = {written("4821", "4821"), written("4821", "4,821"), written("5", "17")};
  EXPECT_EQ(judged("exact_match", same, 0)[1], 1);
}

TEST(TaskMetrics, ThoughtsAreNoAnswerInAnyTask) {
  EXPECT_EQ(judged("exact_match", {written("<think>\n\n</think>\n\n4821.", "4821")})[0], 1);
  EXPECT_EQ(judged("exact_match", {written("Okay, 4821 comes to mind, but no.</think>\n\n17", "4821")})[0], 0);
  // The prompt opened the thought, and the answer was never begun.
  Json cut = {{"question_id", "q"},           {"gold_option", 1}, {"n_options", 4},
              {"prompt_opens_thought", true}, {"text", "B"},      {"stop_reason", "end"}};
  EXPECT_EQ(judged("multiple_choice", {cut})[0], 0);
  EXPECT_EQ(judged("multiple_choice", {cut})[2], 0);
  cut["prompt_opens_thought"] = false;
  EXPECT_EQ(judged("multiple_choice", {cut})[0], 1);
  cut.erase("prompt_opens_thought");
  cut["rendered_prompt"] = "<|im_start|>assistant\n<think>\n";  // a record of an older program
  EXPECT_EQ(judged("multiple_choice", {cut})[0], 0);
  Json sample = {{"text", "so \\boxed{7}</think>Final Answer: 12"},
                 {"stop_reason", "stop"},
                 {"thought_tokens", 1},
                 {"compactions", Json::array()}};
  EXPECT_EQ(judged("reasoning", {{{"question_id", "q"}, {"gold_answer", "12"}, {"samples", {sample}}}})[0], 1);
}

// What is cut may not have got to its answer; the paper's parser reads its last letter.
TEST(TaskMetrics, ACutChoiceIsUnread) {
  const Json cut = {{"question_id", "q"},
                    {"gold_option", 1},
                    {"n_options", 4},
                    {"text", "It could be A or B"},
                    {"stop_reason", "length"}};
  EXPECT_THAT(judged("multiple_choice", {cut}), ElementsAre(0, 1, 0, 1));
}

TEST(TaskMetrics, EveryOptionWithTheRightTextIsRight) {
  Json answer = {{"question_id", "q"},      {"gold_option", 0}, {"n_options", 4},
                 {"right_options", {0, 2}}, {"text", "C"},      {"stop_reason", "end"}};
  EXPECT_THAT(judged("multiple_choice", {answer}), ElementsAre(1, 1, 1, 0));
  answer["right_options"] = {4};
  EXPECT_THAT(error_of("multiple_choice", answer), HasSubstr("field 'right_options' of answer 0 names option 4 of 4"));
  Json scored = {{"question_id", "q"},
                 {"gold_option", 0},
                 {"right_options", {0, 1}},
                 {"option_log_likelihood", {-6.0, -4.0}},
                 {"option_tokens", {2, 2}}};
  EXPECT_EQ(judged("likelihood", {scored})[0], 1);
}

TEST(TaskMetrics, FidelityPerToken) {
  Json answer = {
      {"question_id", "q"}, {"n_tokens", 4}, {"kl_sum", 2.0}, {"log_likelihood_sum", -6.0}, {"top_agreement", 3}};
  EXPECT_THAT(judged("fidelity", {answer}), ElementsAre(0.5, 1.5, 0.75));
  answer["n_tokens"] = 0;
  answer["top_agreement"] = 0;
  EXPECT_THAT(judged("fidelity", {answer}), IsEmpty());
}

TEST(TaskMetrics, BrokenAnswersNameRecordAndField) {
  Json answer = {{"question_id", "q"}, {"gold_option", 0}, {"option_log_likelihood", {-1.0}}};
  EXPECT_THAT(error_of("likelihood", answer), HasSubstr("field 'option_tokens' of answer 0 is missing"));
  EXPECT_THAT(error_of("likelihood", answer), HasSubstr("record of cell c, document 'd'"));
  answer["option_tokens"] = {0};
  EXPECT_THAT(error_of("likelihood", answer), HasSubstr("counts 0 tokens"));
  answer["option_tokens"] = {1};
  answer["gold_option"] = 1;
  EXPECT_THAT(error_of("likelihood", answer),
              HasSubstr("'gold_option' of answer 0 must be below the number of options, 1; got 1"));
  answer["option_log_likelihood"] = {nullptr};
  EXPECT_THAT(error_of("likelihood", answer), HasSubstr("must hold finite numbers; got null"));
}

}  // namespace
}  // namespace kvc
