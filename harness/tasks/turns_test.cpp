// A conversation over a cache must be what the model says to the whole conversation read at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/api/context.h"
#include "harness/api/task.h"
#include "harness/model/generate.h"
#include "harness/tasks/judging/judge.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

Question question(const std::string& id, const std::string& text, const std::string& prefix = "") {
  Question made;
  made.id = id;
  made.text = text;
  made.gold_answer = "gold";
  made.answer_prefix = prefix;
  return made;
}

class TurnsTask : public ::testing::Test {
 protected:
  TurnsTask()
      : model_(tiny_model(11, at::kFloat, 1024)),
        context_(make_context(model_, "A lighthouse stands on the northern cliff.")),
        full_(model_.decoder().prefill(context_.tokens)),
        task_(Registry<Task>::instance().create("turns", {{"max_new_tokens", 6}})) {}

  std::vector<Json> ask(const std::vector<Question>& questions) const {
    return task_->ask({model_, full_, questions, 5});
  }

  Model model_;
  Context context_;
  KvCache full_;
  std::unique_ptr<Task> task_;
  std::vector<Question> questions_ = {question("a", "Where is it?"), question("b", "Who keeps it?", "The keeper is"),
                                      question("c", "How many ships?")};
};

// The judge reads document and conversation in one prefill, with no tail.
TEST_F(TurnsTask, EveryAnswerIsThatToTheJoinedConversation) {
  const std::vector<Json> answers = ask(questions_);
  ASSERT_EQ(answers.size(), 3U);
  std::string conversation;
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].at("turn"), i + 1);
    conversation += answers[i].at("rendered_prompt");
    // The tokenizer of the tiny model reads bytes, so the joined text has the joined tokens.
    std::vector<int64_t> joined = context_.tokens;
    const std::vector<int64_t> behind = model_.tokenizer().encode({{conversation, true}});
    ASSERT_EQ(behind.size(), answers[i].at("conversation_tokens").get<size_t>());
    joined.insert(joined.end(), behind.begin(), behind.end() - 1);
    const KvCache all = model_.decoder().prefill(joined);
    DecodeSettings settings;
    settings.max_new_tokens = 6;
    const Generation judge = generate(model_, all, {{behind.back()}}, settings, {}).front();
    EXPECT_EQ(answers[i].at("text"), judge.text) << "turn " << i + 1;
    conversation += judge.text;
  }
}

TEST_F(TurnsTask, ATurnIsThatOfTheChatTemplate) {
  const std::vector<Json> answers = ask(questions_);
  std::string rendered;
  RenderOptions options;
  options.generation_prompt = true;
  for (const Segment& segment : model_.chat_template().render(
           {{"user", questions_[0].text}, {"assistant", "ANSWER"}, {"user", questions_[1].text}}, options)) {
    rendered += segment.text;
  }
  const std::string behind = rendered.substr(rendered.find("ANSWER") + 6);
  EXPECT_EQ(answers[1].at("rendered_prompt"), behind + "The keeper is");
}

TEST_F(TurnsTask, TheFirstTurnIsExactMatchsAndLaterOnesSeeIt) {
  const auto alone = Registry<Task>::instance().create("exact_match", {{"max_new_tokens", 6}});
  const std::vector<Json> separate = alone->ask({model_, full_, questions_, 5});
  const std::vector<Json> answers = ask(questions_);
  EXPECT_EQ(answers[0].at("text"), separate[0].at("text"));
  EXPECT_EQ(answers[0].at("rendered_prompt"), separate[0].at("rendered_prompt"));
  const std::vector<Json> turned = ask({questions_[1], questions_[0]});
  EXPECT_EQ(turned[0].at("text"), separate[1].at("text"));
  EXPECT_GT(answers[2].at("conversation_tokens"), answers[1].at("conversation_tokens"));
}

TEST(TurnsMetrics, ShowTheTurn) {
  const std::string where = "a record";
  const std::vector<int64_t> turns = {1, 2, 8, 9, 16, 17, 40};
  std::vector<Json> answers;
  for (const int64_t turn : turns) {
    answers.push_back(
        {{"text", turn == 2 ? "no" : "gold"}, {"gold_answer", "gold"}, {"turn", turn}, {"stop_reason", "end"}});
  }
  const auto values = find_task_metrics("turns")->judge(fields_of(answers, where));
  const std::vector<MetricInfo>& metrics = find_task_metrics("turns")->metrics;
  const std::vector<std::string> shown_as = {"turn_1",        "turn_2",        "turn_8",       "turns_9_to_16",
                                             "turns_9_to_16", "turns_from_17", "turns_from_17"};
  for (size_t i = 0; i < turns.size(); ++i) {
    ASSERT_EQ(values[i].size(), metrics.size());
    for (size_t m = 0; m < metrics.size(); ++m) {
      if (metrics[m].name == "accuracy" || metrics[m].name == shown_as[i]) {
        EXPECT_EQ(values[i][m], turns[i] == 2 ? 0 : 1) << metrics[m].name << " of turn " << turns[i];
      } else if (metrics[m].name.starts_with("turn")) {
        EXPECT_TRUE(std::isnan(values[i][m])) << metrics[m].name << " of turn " << turns[i];
      }
    }
  }
}

}  // namespace
}  // namespace kvc
