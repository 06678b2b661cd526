#include <gtest/gtest.h>

#include "harness/api/task.h"
#include "harness/tasks/judging/judge.h"
#include "harness/testing/tiny_model.h"

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

// A number that a data set sets is a signed one, one that was read from a file an unsigned one: both are its limit.
TEST(StringMatch, KeepsTheDataSetsLimit) {
  const Model model = tiny_model(11, at::kFloat, 1024);
  const KvCache nothing = model.decoder().empty_cache();
  const auto task = Registry<Task>::instance().create("string_match", {});
  for (const Json& limit : {Json(int64_t{3}), Json(std::uint64_t{3})}) {
    Question question;
    question.id = "q";
    question.text = "Which?";
    question.gold_answer = "1";
    question.extra["max_new_tokens"] = limit;
    const std::vector<Question> questions = {question};
    const Json answer = task->ask({model, nothing, questions, 5}).at(0);
    EXPECT_LE(answer.at("n_tokens"), 3) << limit;
  }
}

TEST(StringMatch, ThoughtsAreNoAnswer) {
  EXPECT_EQ(judged("<think>1234567?</think> none", {"1234567"}, false), (std::vector<double>{0, 0}));
}

}  // namespace
}  // namespace kvc
