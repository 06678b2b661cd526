// Tasks with integer options at their limits: a refusal or answers, never an overflow.
#include "harness/testing/integer_options.h"

#include <gtest/gtest.h>

#include "harness/api/task.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

TEST(IntegerOptions, OfTasksEndInARefusalOrAnswers) {
  const Model model = tiny_model(11, at::kFloat, 256);
  const KvCache full = model.decoder().prefill(model.tokenizer().encode_text("The keeper counts the ships."));
  Question question;
  question.id = "q1";
  question.text = "Who counts?";
  question.options = {"The keeper", "A ship"};
  question.gold_option = 0;
  question.gold_answer = "4821";
  question.answer_prefix = "It is";
  question.extra = {{"score_rule", "f1"}, {"check", "refuses"}};
  expect_limits_of_integer_options<Task>(
      [&](const std::string& name, const Task& task) {
        ASSERT_TRUE(task.accepts(question)) << name;
        if (task.compacts_online()) return;  // needs a document and a method: reasoning_test.cpp
        const auto reference = task.reference({model, full, {question}, 5, nullptr});
        EXPECT_FALSE(task.ask({model, full, {question}, 5, reference.get()}).empty()) << name;
      },
      [](const std::string& /*name*/) { return Json::object(); });
}

}  // namespace
}  // namespace kvc
