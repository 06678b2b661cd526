#include "harness/core/config_text.h"
#include "harness/tasks/choice_prompt.h"
#include "harness/tasks/task_fixture_test.h"
#include "harness/tasks/written_answers.h"

namespace kvc {
namespace {

TEST_F(Tasks, AcceptWhatTheyCanAsk) {
  const Question free = needle("n", "castle");
  const Question listed = choices_[0];
  EXPECT_FALSE(make_task("multiple_choice")->accepts(free));
  EXPECT_TRUE(make_task("multiple_choice")->accepts(listed));
  EXPECT_FALSE(make_task("likelihood")->accepts(free));
  EXPECT_TRUE(make_task("likelihood")->accepts(listed));
  EXPECT_TRUE(make_task("exact_match")->accepts(free));
  EXPECT_FALSE(make_task("exact_match")->accepts(listed));
  EXPECT_TRUE(make_task("fidelity")->accepts(free));
  EXPECT_TRUE(make_task("fidelity")->accepts(listed));
}

// Such options mean something else in another order, and nothing of their own.
TEST_F(Tasks, OptionsThatNameOthersAreNotTurned) {
  const auto question = [](const std::string& option) { return choice("q", "Why?", {"a dog", "two cats", option}); };
  for (const char* option : {"Both A and B", "A and B", "(A) or (B)", "all of the above", "None of the above.",
                             "Neither of these", "options A and B", "A, B"}) {
    EXPECT_FALSE(make_task("likelihood")->accepts(question(option))) << option;
    EXPECT_FALSE(make_task("multiple_choice", {{"rotations", "all"}})->accepts(question(option))) << option;
    EXPECT_TRUE(make_task("multiple_choice")->accepts(question(option))) << option;
  }
  for (const char* option : {"A dog and B vitamins", "A", "Vitamin A and D", "both of his arms", "all of the family",
                             "I and my brother", "type A"}) {
    EXPECT_TRUE(make_task("likelihood")->accepts(question(option))) << option;
  }
}

TEST_F(Tasks, EveryOptionWithTheRightTextIsRight) {
  Question twice = choice("q", "Why?", {"a dog", "two", "a dog"});
  twice.gold_option = 0;
  EXPECT_EQ(ask(*make_task("multiple_choice", {{"max_new_tokens", 2}}), full_, {twice})[0].at("right_options"),
            Json({0, 2}));
  EXPECT_FALSE(
      ask(*make_task("multiple_choice", {{"max_new_tokens", 2}}), full_, choices_)[0].contains("right_options"));
}

TEST_F(Tasks, RefuseWrongOptions) {
  EXPECT_THAT(error_of([] { make_task("multiple_choice", {{"temperature", 1.0}}); }), HasSubstr("write sampling: own"));
  EXPECT_THAT(error_of([] {
                make_task("multiple_choice", {{"sampling", "own"}, {"top_p", 0}, {"temperature", -1}});
              }),
              HasSubstr("2 problems"));
  EXPECT_THAT(error_of([] {
                make_task("multiple_choice", {{"max_new_tokens", 0}});
              }),
              HasSubstr("'max_new_tokens' must be 1 or more; got 0"));
  EXPECT_THAT(error_of([] {
                make_task("exact_match", {{"max_new_tokens", 0}});
              }),
              HasSubstr("'max_new_tokens' must be 1 or more; got 0"));
  EXPECT_THAT(error_of([] {
                make_task("fidelity", {{"max_new_tokens", 0}});
              }),
              HasSubstr("'max_new_tokens' must be 1 or more; got 0"));
  EXPECT_THAT(error_of([] {
                make_task("likelihood", {{"normalise", true}});
              }),
              HasSubstr("unknown option 'normalise'"));
}

// --- multiple choice ---

TEST(ChoicePrompt, IsWordForWord) {
  EXPECT_EQ(choice_prompt(choice("q", "Why?", {"a dog", "two", "x", "none"}), "llama", ""),
            "Why?\n\nA. a dog\nB. two\nC. x\nD. none\n\nPlease think step by step briefly and then, on a new line, "
            "respond with **only** "
            "the letter (A, B, C, or D) of the correct option. If you are not sure, still make a guess.");
  EXPECT_EQ(choice_instruction("qwen3", "Qwen3 4B", 5),
            "Please think very briefly and then respond with **only** the letter (A, B, C, D, or E) of the correct "
            "option. If you are not "
            "sure, still make a guess.");
  EXPECT_EQ(choice_instruction("qwen3", "Qwen3-4B-Instruct-2507", 4),
            "Please think step by step very briefly and then, on a new line, respond with the letter (A, B, C, or D) "
            "of the correct option. If "
            "you are not sure, still make a guess.");
  EXPECT_EQ(choice_instruction("something", "", 4), choice_instruction("llama", "", 4));
  EXPECT_EQ(option_letters(2), "A or B");
  EXPECT_EQ(option_letters(3), "A, B, or C");
}

TEST_F(Tasks, MultipleChoiceStoresWhatWasAskedAndWritten) {
  const std::vector<Json> answers = ask(*make_task("multiple_choice", {{"max_new_tokens", 4}}), full_, choices_);
  ASSERT_EQ(answers.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(answers[i].at("question_id"), choices_[i].id);
    EXPECT_EQ(answers[i].at("prompt"), choice_prompt(choices_[i], "llama", ""));
    const std::string rendered = answers[i].at("rendered_prompt");
    EXPECT_TRUE(rendered.starts_with("<|im_start|>user\n" + choice_prompt(choices_[i], "llama", ""))) << rendered;
    EXPECT_TRUE(rendered.ends_with("<|im_start|>assistant\n")) << rendered;
    EXPECT_TRUE(answers[i].at("stop_reason") == "end" || answers[i].at("n_tokens") == 4);
    EXPECT_TRUE(answers[i].at("text").is_string());
  }
}

TEST_F(Tasks, SamplingDependsOnSeedAndQuestionAlone) {
  const auto task = make_task("multiple_choice",
                              {{"max_new_tokens", 12}, {"sampling", "own"}, {"temperature", 1.0}, {"top_p", 0.95}});
  const std::vector<Json> together = ask(*task, full_, choices_);
  EXPECT_EQ(together, ask(*task, full_, choices_));
  EXPECT_NE(together, ask(*task, full_, choices_, 6));
  const std::vector<Json> reversed = ask(*task, full_, {choices_.rbegin(), choices_.rend()});
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(together[i].at("text"), reversed[2 - i].at("text"));
    EXPECT_EQ(together[i].at("text"), ask(*task, full_, {choices_[i]})[0].at("text"));
  }
}

TEST_F(Tasks, RotationsAskEveryOrderOnce) {
  const std::vector<Json> plain = ask(*make_task("multiple_choice", {{"max_new_tokens", 4}}), compact_, choices_);
  const std::vector<Json> all =
      ask(*make_task("multiple_choice", {{"max_new_tokens", 4}, {"rotations", "all"}}), compact_, choices_);
  const std::vector<Json> two =
      ask(*make_task("multiple_choice", {{"max_new_tokens", 4}, {"rotations", 2}}), compact_, choices_);
  for (size_t i = 0; i < choices_.size(); ++i) {
    EXPECT_EQ(all[i].at("question_id"), choices_[i].id);
    ASSERT_EQ(all[i].at("rotations").size(), choices_[i].options.size());
    ASSERT_EQ(two[i].at("rotations").size(), 2u);
    const size_t n = choices_[i].options.size();
    for (size_t shift = 0; shift < n; ++shift) {
      Question turned = choices_[i];
      for (size_t letter = 0; letter < n; ++letter) turned.options[letter] = choices_[i].options[(letter + shift) % n];
      Json expected = ask(*make_task("multiple_choice", {{"max_new_tokens", 4}}), compact_, {turned})[0];
      expected.erase("question_id");
      expected["shift"] = shift;
      EXPECT_EQ(all[i].at("rotations")[shift], expected);
      if (shift < 2) {
        EXPECT_EQ(two[i].at("rotations")[shift], expected);
      }
    }
    EXPECT_EQ(all[i].at("rotations")[0].at("text"), plain[i].at("text"));
  }
  for (const char* wrong : {"0", "27", "-1", "some", "", "2x"}) {
    EXPECT_THAT(error_of([&] {
                  make_task("multiple_choice", {{"rotations", wrong}});
                }),
                HasSubstr("'rotations' must be all or 1 to 26; got '"))
        << wrong;
  }
}

// --- exact match ---

TEST_F(Tasks, ExactMatchIsGreedyBehindThePrefix) {
  const std::vector<Json> answers = ask(*make_task("exact_match", {{"max_new_tokens", 5}}), compact_, needles_);
  for (size_t i = 0; i < needles_.size(); ++i) {
    const std::vector<int64_t> prompt = make_question_prompt(model_, needles_[i].text, needles_[i].answer_prefix);
    std::vector<int64_t> written;
    std::string stop_reason = "length";
    const std::vector<int64_t> ends = model_.tokenizer().end_ids();
    while (written.size() < 5) {
      const int64_t next =
          naive_log_probabilities(model_, compact_, joined(prompt, written)).select(0, -1).argmax().item<int64_t>();
      if (std::find(ends.begin(), ends.end(), next) != ends.end()) {
        stop_reason = "end";
        break;
      }
      written.push_back(next);
    }
    EXPECT_EQ(answers[i].at("text"), model_.tokenizer().decode(written));
    EXPECT_EQ(answers[i].at("n_tokens"), written.size());
    EXPECT_EQ(answers[i].at("stop_reason"), stop_reason);
    EXPECT_EQ(answers[i].at("answer_prefix"), needles_[i].answer_prefix);
    EXPECT_EQ(answers[i].at("prompt"), needles_[i].text);
  }
}

// --- likelihood ---

TEST_F(Tasks, LikelihoodIsTheNaiveSum) {
  const std::vector<Json> answers = ask(*make_task("likelihood"), compact_, choices_);
  ASSERT_EQ(answers.size(), choices_.size());
  for (size_t i = 0; i < choices_.size(); ++i) {
    EXPECT_EQ(answers[i].at("prompt"), choices_[i].text);
    const std::vector<int64_t> prompt = make_question_prompt(model_, choices_[i].text);
    EXPECT_EQ(answers[i].at("rendered_prompt"), spelled(model_, prompt));
    ASSERT_EQ(answers[i].at("option_log_likelihood").size(), choices_[i].options.size());
    for (size_t o = 0; o < choices_[i].options.size(); ++o) {
      const std::vector<int64_t> option = model_.tokenizer().encode_text(choices_[i].options[o]);
      const at::Tensor log_p = naive_log_probabilities(model_, compact_, joined(prompt, option));
      double sum = 0;
      for (size_t t = 0; t < option.size(); ++t) {
        sum += log_p[static_cast<int64_t>(prompt.size() + t) - 1][option[t]].item<double>();
      }
      EXPECT_NEAR(answers[i].at("option_log_likelihood")[o].get<double>(), sum,
                  1e-3);  // float32 over at most 21 tokens
      EXPECT_NEAR(answers[i].at("option_log_likelihood_neutral")[o].get<double>(), naive_neutral(option), 1e-3);
      EXPECT_EQ(answers[i].at("option_tokens")[o], option.size());
      EXPECT_EQ(answers[i].at("option_bytes")[o], choices_[i].options[o].size());
    }
  }
}

TEST_F(Tasks, LikelihoodWithoutContextIsMadeOnceAndDependsOnTheOptionAlone) {
  const auto task = make_task("likelihood");
  const auto reference = task->reference({model_, full_, choices_, 5, nullptr});
  const std::vector<Json> on_full = task->ask({model_, full_, choices_, 5, reference.get()});
  const std::vector<Json> on_compact = task->ask({model_, compact_, choices_, 5, reference.get()});
  for (size_t i = 0; i < choices_.size(); ++i) {
    EXPECT_EQ(on_full[i].at("option_log_likelihood_neutral"), on_compact[i].at("option_log_likelihood_neutral"));
    EXPECT_NE(on_full[i].at("option_log_likelihood"), on_compact[i].at("option_log_likelihood"));
  }
  Question other = choices_[1];
  other.text = "Something else?";
  other.id = "q9";
  EXPECT_EQ(ask(*task, full_, {other})[0].at("option_tokens"), on_full[1].at("option_tokens"));
  EXPECT_NEAR(ask(*task, full_, {other})[0].at("option_log_likelihood_neutral")[0].get<double>(),
              on_full[1].at("option_log_likelihood_neutral")[0].get<double>(), 1e-3);
  EXPECT_THAT(error_of([&] {
                task->ask({model_, full_, choices_, 5, nullptr});
              }),
              HasSubstr("without the reference of these questions"));
  const auto of_others = task->reference({model_, full_, {choices_[1]}, 5, nullptr});
  const auto of_another_task = make_task("fidelity")->reference({model_, full_, choices_, 5, nullptr});
  for (const TaskReference* wrong : {of_others.get(), of_another_task.get()}) {
    EXPECT_THAT(error_of([&] {
                  task->ask({model_, full_, choices_, 5, wrong});
                }),
                HasSubstr("without the reference of these questions"));
  }
}

TEST_F(Tasks, LikelihoodRefusesAnOptionWithoutTokens) {
  const std::vector<Question> questions = {choice("q", "Why?", {"a", ""})};
  EXPECT_THAT(error_of([&] { ask(*make_task("likelihood"), full_, questions); }),
              HasSubstr("option '' has no tokens\n  where: question q"));
}

// --- fidelity ---

TEST_F(Tasks, NotNumbersAreAnError) {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < full_.n_layers(); ++l) {
    LayerKv layer = full_.layer(l);
    layer.values = at::full_like(layer.values, NAN);
    layers.push_back(layer);
  }
  const KvCache broken(std::move(layers), full_.next_position());
  EXPECT_THAT(error_of([&] { ask(*make_task("likelihood"), broken, choices_); }), HasSubstr("not finite"));
  EXPECT_THAT(error_of([&] { ask(*make_task("fidelity"), broken, choices_); }), HasSubstr("not finite"));
}

class EveryTask : public Tasks, public ::testing::WithParamInterface<std::string> {};

TEST_P(EveryTask, AnswersEachQuestionInItsOrderWhateverTheBatch) {
  if (GetParam() == "turns") GTEST_SKIP() << "its questions stand in one conversation: turns_test.cpp";
  const auto task = make_task(GetParam());
  std::vector<Question> questions;
  for (const auto& list : {choices_, needles_}) {
    for (const Question& question : list) {
      if (task->accepts(question)) questions.push_back(question);
    }
  }
  ASSERT_FALSE(questions.empty());
  const std::vector<Json> answers = ask(*task, compact_, questions);
  const std::vector<Json> reversed = ask(*task, compact_, {questions.rbegin(), questions.rend()});
  ASSERT_EQ(answers.size(), questions.size());
  for (size_t i = 0; i < questions.size(); ++i) {
    EXPECT_EQ(answers[i].at("question_id"), questions[i].id);
    const Json& other = reversed[questions.size() - 1 - i];
    for (const auto& [name, value] : answers[i].items()) {
      const Json left = value.is_array() ? value : Json::array({value});
      const Json right = value.is_array() ? other.at(name) : Json::array({other.at(name)});
      for (size_t k = 0; k < left.size(); ++k) {
        if (left[k].is_number_float()) {
          EXPECT_NEAR(left[k].get<double>(), right[k].get<double>(), 1e-3) << name;
        } else {
          EXPECT_EQ(left[k], right[k]) << name;
        }
      }
    }
  }
}

TEST_P(EveryTask, SeveralCachesAskedTogetherAnswerAsEachAlone) {
  const auto task = make_task(GetParam());
  std::vector<Question> questions = task->accepts(choices_[0]) ? choices_ : needles_;
  const KvCache nothing = model_.decoder().empty_cache();
  const KvCache least = thinned(compact_);
  const auto reference = task->reference({model_, full_, questions, 5, nullptr});
  std::vector<AskRequest> requests;
  std::vector<std::vector<Json>> alone;
  for (const KvCache* cache : std::vector<const KvCache*>{&full_, &compact_, &nothing, &least}) {
    if (GetParam() == "head_errors" && cache == &nothing) continue;  // compares head by head
    requests.push_back({model_, *cache, questions, 5, reference.get()});
    alone.push_back(task->ask(requests.back()));
  }
  EXPECT_EQ(task->ask_together(requests), alone);
}

TEST_P(EveryTask, LeavesTheCacheUntouched) {
  const auto task = make_task(GetParam());
  const KvCache before = compact_.clone();
  std::vector<Question> questions = task->accepts(choices_[0]) ? choices_ : needles_;
  ASSERT_TRUE(task->accepts(questions[0]));
  ask(*task, compact_, questions);
  for (int64_t l = 0; l < before.n_layers(); ++l) {
    EXPECT_TRUE(at::equal(before.layer(l).keys, compact_.layer(l).keys));
    EXPECT_TRUE(at::equal(before.layer(l).values, compact_.layer(l).values));
  }
}

// Tasks that compact while they write have no finished cache to be asked over (online_writer_test.cpp).
std::vector<std::string> tasks_over_a_cache() {
  std::vector<std::string> names = Registry<Task>::instance().names();
  std::erase_if(names, [](const std::string& name) { return make_task(name)->compacts_online(); });
  return names;
}

INSTANTIATE_TEST_SUITE_P(Registered, EveryTask, ::testing::ValuesIn(tasks_over_a_cache()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace kvc
