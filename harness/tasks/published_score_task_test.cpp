#include <gtest/gtest.h>

#include "harness/api/task.h"
#include "harness/tasks/judging/judge.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

Question question(const std::string& id, const std::string& rule, int64_t max_new_tokens) {
  Question made;
  made.id = id;
  made.text = "Ask " + id + ".";
  made.gold_answer = "gold";
  made.extra = {{"score_rule", rule}, {"references", {"gold", "good"}}, {"max_new_tokens", max_new_tokens}};
  return made;
}

TEST(PublishedScoreTask, AsksWhatHasAScore) {
  const auto task = Registry<Task>::instance().create("published_score", {});
  EXPECT_TRUE(task->accepts(question("a", "f1", 8)));
  EXPECT_FALSE(task->accepts(question("a", "bleu", 8)));
  Question free = question("a", "f1", 8);
  free.extra = Json::object();
  EXPECT_FALSE(task->accepts(free));
}

TEST(PublishedScoreTask, EachQuestionHasItsOwnLimit) {
  const Model model = tiny_model(11, at::kFloat, 1024);
  const KvCache nothing =
      KvCache::empty(model.spec().n_layers, model.spec().n_kv_heads, model.spec().head_dim, model.decoder().options());
  const std::vector<Question> questions = {question("a", "f1", 9), question("b", "f1", 3), question("c", "rouge_l", 9)};
  const auto task = Registry<Task>::instance().create("published_score", {});
  const std::vector<Json> together = task->ask({model, nothing, questions, 5});
  ASSERT_EQ(together.size(), 3U);
  for (size_t i = 0; i < questions.size(); ++i) {
    const std::vector<Question> one = {questions[i]};
    EXPECT_EQ(together[i], task->ask({model, nothing, one, 5}).at(0));
    EXPECT_EQ(together[i].at("question_id"), questions[i].id);
    EXPECT_LE(together[i].at("n_tokens"), questions[i].extra.at("max_new_tokens"));
    EXPECT_EQ(together[i].at("references").size(), 2U);
  }
  const auto shorter = Registry<Task>::instance().create("published_score", {{"max_new_tokens", 2}});
  EXPECT_LE(shorter->ask({model, nothing, questions, 5}).at(0).at("n_tokens"), 2);
}

TEST(PublishedScoreTask, IsJudgedFromTheRecordAlone) {
  const std::string where = "a record";
  Json answer = {{"text", "<think>x</think>\nDate\nor City"},
                 {"stop_reason", "length"},
                 {"score_rule", "classification"},
                 {"references", {{{"text", "Date"}}}},
                 {"classes", {{{"text", "City"}}, {{"text", "Date"}}}}};
  const auto judged = [&] {
    const std::vector<Json> answers = {answer};
    return find_task_metrics("published_score")->judge(fields_of(answers, where)).front();
  };
  EXPECT_EQ(judged(), (std::vector<double>{0.5, 1}));
  answer["first_line"] = true;
  EXPECT_EQ(judged(), (std::vector<double>{1, 1}));
  answer["score_rule"] = "bleu";
  EXPECT_THROW(judged(), Error);
}

}  // namespace
}  // namespace kvc
