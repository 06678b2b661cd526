#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "harness/api/task.h"
#include "harness/core/config_text.h"
#include "harness/testing/checks.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Task> reasoning(const Json& options) {
  return Registry<Task>::instance().create("reasoning", options);
}

Question problem(const std::string& id, const std::string& gold) {
  Question question;
  question.id = id;
  question.text = "Answer " + id + " with a number.";
  question.gold_answer = gold;
  return question;
}

// All but the seconds, which differ from run to run.
Json without_times(Json sample) {
  for (Json& step : sample["compactions"]) {
    step.erase("seconds");
    step.erase("drift_s");
  }
  return sample;
}

class ReasoningTask : public ::testing::Test {
 protected:
  ReasoningTask()
      : model_(tiny_model(11, at::kFloat, 1024)),
        nothing_(KvCache::empty(model_.spec().n_layers, model_.spec().n_kv_heads, model_.spec().head_dim,
                                model_.decoder().options())),
        method_(Registry<CompactionMethod>::instance().create("random_keys", Json::object())),
        budget_(Registry<BudgetRule>::instance().create("uniform", Json::object())) {
    target_.fraction = 0.5;
  }

  std::vector<Json> ask(const Json& options, const std::vector<Question>& questions) const {
    const OnlineCompaction online{"Ships pass.", *method_, nullptr, target_, budget_.get()};
    return reasoning(options)->ask({model_, nothing_, questions, 5, nullptr, &online});
  }

  Model model_;
  KvCache nothing_;
  std::unique_ptr<CompactionMethod> method_;
  std::unique_ptr<BudgetRule> budget_;
  TargetSize target_;
  Json options_ = {{"limit", 200},      {"compactions", 2},   {"protected_tokens", 8}, {"samples", 3},
                   {"sampling", "own"}, {"temperature", 1.0}, {"answer_tokens", 4}};
};

TEST_F(ReasoningTask, AcceptsFreeAnswersFrom0To999) {
  const auto task = reasoning({});
  EXPECT_TRUE(task->compacts_online());
  for (const char* gold : {"0", "33", "999"}) EXPECT_TRUE(task->accepts(problem("q", gold))) << gold;
  for (const char* gold : {"", "4821", "-1", "3.5", "x"}) EXPECT_FALSE(task->accepts(problem("q", gold))) << gold;
}

TEST_F(ReasoningTask, AcceptsAnyMathematicalAnswerOfAProblem) {
  const auto task = reasoning({});
  Question question = problem("q", "\\frac{1}{2}");
  EXPECT_FALSE(task->accepts(question));
  question.extra["answer_form"] = "math";
  EXPECT_TRUE(task->accepts(question));
  Json options = options_;
  options["samples"] = 1;
  EXPECT_EQ(ask(options, {question}).at(0).at("answer_form"), "math");
  EXPECT_FALSE(ask(options, {problem("q", "1")}).at(0).contains("answer_form"));
  question.gold_answer.clear();
  EXPECT_FALSE(task->accepts(question));
}

TEST_F(ReasoningTask, ASampleDependsOnItsProblemAndNumberAlone) {
  const std::vector<Question> both = {problem("a", "1"), problem("b", "2")};
  const std::vector<Json> answers = ask(options_, both);
  ASSERT_EQ(answers.size(), 2U);
  std::set<std::string> texts;
  for (const Json& answer : answers) {
    ASSERT_EQ(answer.at("samples").size(), 3U);
    for (const Json& sample : answer.at("samples")) texts.insert(sample.at("text").get<std::string>());
  }
  EXPECT_EQ(texts.size(), 6U);
  EXPECT_EQ(answers[1].at("question_id"), "b");
  EXPECT_THAT(answers[1].at("prompt").get<std::string>(), HasSubstr("Ships pass.\n\nAnswer b with a number."));
  Json fewer = options_;
  fewer["samples"] = 2;
  const Json alone = ask(fewer, {both[1]}).front();
  for (size_t k = 0; k < 2; ++k) {
    EXPECT_EQ(without_times(alone.at("samples")[k]), without_times(answers[1].at("samples")[k]));
  }
}

TEST_F(ReasoningTask, RecordsWhatTheLimitDid) {
  for (const Json& sample : ask(options_, {problem("a", "1")}).front().at("samples")) {
    EXPECT_LE(sample.at("peak_entries").get<double>(), 200);
    if (sample.at("stop_reason") != "limit") continue;
    EXPECT_TRUE(sample.at("forced").get<bool>());
    ASSERT_EQ(sample.at("compactions").size(), 2U);
    EXPECT_EQ(sample.at("compactions")[1].at("entries_after"), 8 + 96);
    EXPECT_GE(sample.at("compactions")[1].at("drift_kl").get<double>(), 0);
  }
}

TEST_F(ReasoningTask, ExplainsWrongOptions) {
  const auto problem_with = [&](const char* name, const Json& value) {
    Json options = options_;
    options[name] = value;
    return error_of([&] { reasoning(options); });
  };
  EXPECT_THAT(problem_with("limit", 0), HasSubstr("'limit' must be 1 to 100000000; got 0"));
  EXPECT_THAT(problem_with("compactions", -1), HasSubstr("'compactions' must be 0 to 1000000; got -1"));
  EXPECT_THAT(problem_with("protected_tokens", -1), HasSubstr("'protected_tokens' must be 0 to 100000000; got -1"));
  EXPECT_THAT(problem_with("samples", 0), HasSubstr("'samples' must be 1 to 10000; got 0"));
  EXPECT_THAT(problem_with("answer_tokens", 0), HasSubstr("'answer_tokens' must be 1 to 100000; got 0"));
  EXPECT_THAT(problem_with("protected_tokens", 1000000),
              HasSubstr("'protected_tokens' must be less than the limit of 200; got 1000000"));
  EXPECT_THAT(problem_with("every", 200), HasSubstr("'every' must be less than the limit of 200; got 200"));
  EXPECT_THAT(problem_with("limit", 5), HasSubstr("'protected_tokens' must be less than the limit of 5; got 8"));
  EXPECT_THAT(problem_with("temperature", 0), HasSubstr("'samples' are all the same when greedy"));
  EXPECT_THAT(problem_with("temperature", -0.5), HasSubstr("'temperature' must be 0 to 100; got -0.5"));
  EXPECT_THAT(problem_with("top_p", 0), HasSubstr("'top_p' must be above 0 and at most 1; got 0"));
  EXPECT_THAT(problem_with("sampling", "modle"), HasSubstr("did you mean 'model'"));
  EXPECT_THAT(problem_with("limt", 3), HasSubstr("did you mean 'limit'"));
}

TEST_F(ReasoningTask, NeedsAMethodAndAWayToSample) {
  EXPECT_THAT(error_of([&] {
                reasoning({})->ask({model_, nothing_, {}, 5});
              }),
              HasSubstr("reasoning is asked without a method to compact with"));
  EXPECT_THAT(error_of([&] {
                ask({{"samples", 2}}, {problem("a", "1")});
              }),
              HasSubstr("2 samples of each problem are asked for, but the model's makers propose no sampling"));
}

}  // namespace
}  // namespace kvc
