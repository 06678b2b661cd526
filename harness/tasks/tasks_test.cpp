#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/api/context.h"
#include "harness/api/task.h"
#include "harness/core/config_text.h"
#include "harness/tasks/choice_prompt.h"
#include "harness/tasks/written_answers.h"
#include "harness/testing/checks.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Task> make_task(const std::string& name, const Json& options = {}) {
  return Registry<Task>::instance().create(name, options);
}

Question choice(const std::string& id, const std::string& text, const std::vector<std::string>& options) {
  Question question;
  question.id = id;
  question.text = text;
  question.options = options;
  question.gold_option = 0;
  return question;
}

Question needle(const std::string& id, const std::string& subject) {
  Question question;
  question.id = id;
  question.text = "What is the secret code of the " + subject + "?";
  question.gold_answer = "4821";
  question.answer_prefix = "The secret code of the " + subject + " is";
  question.extra = {{"score_rule", "f1"}, {"check", "refuses"}};  // published_score and side_effects ask it too
  return question;
}

// The distributions over what follows each of `tokens` but the last, one text at a time, all logits at once, in
// float64.
at::Tensor naive_log_probabilities(const Model& model, const KvCache& cache, const std::vector<int64_t>& tokens) {
  Tails tails = Tails::behind(cache, 1, static_cast<int64_t>(tokens.size()));
  const at::Tensor hidden = model.decoder().forward(PackedTokens::single(tokens), cache, tails);
  return at::log_softmax(model.decoder().logits(hidden).to(at::kDouble), -1);
}

std::vector<int64_t> joined(std::vector<int64_t> a, const std::vector<int64_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Every second entry of the cache: something that answers otherwise.
KvCache thinned(const KvCache& cache) {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < cache.n_layers(); ++l) {
    std::vector<at::Tensor> keys, values, bias;
    for (int64_t h = 0; h < cache.n_kv_heads(); ++h) {
      const int64_t len = cache.layer(l).head_len(h);
      keys.push_back(cache.layer(l).head_keys(h).slice(0, 0, len, 2));
      values.push_back(cache.layer(l).head_values(h).slice(0, 0, len, 2));
      bias.emplace_back();
    }
    layers.push_back(pack_heads(keys, values, bias));
  }
  return {std::move(layers), cache.next_position()};
}

class Tasks : public ::testing::Test {
 protected:
  Tasks()
      : model_(tiny_model(11)),
        full_(model_.decoder().prefill(model_.tokenizer().encode_text(kText))),
        compact_(thinned(full_)) {}

  std::vector<Json> ask(const Task& task, const KvCache& cache, const std::vector<Question>& questions,
                        std::uint64_t seed = 5) const {
    const auto reference = task.reference({model_, full_, questions, seed, nullptr});
    return task.ask({model_, cache, questions, seed, reference.get()});
  }

  // log p(option) behind a document and a question that say nothing, one text.
  double naive_neutral(const std::vector<int64_t>& option) const {
    const DecoderSpec& spec = model_.spec();
    const KvCache nothing = KvCache::empty(spec.n_layers, spec.n_kv_heads, spec.head_dim, model_.decoder().options());
    const std::vector<int64_t> before = joined(make_context(model_, "This document has no content.").tokens,
                                               make_question_prompt(model_, "Answer the question."));
    const at::Tensor log_p = naive_log_probabilities(model_, nothing, joined(before, option));
    double sum = 0;
    for (size_t t = 0; t < option.size(); ++t)
      sum += log_p[static_cast<int64_t>(before.size() + t) - 1][option[t]].item<double>();
    return sum;
  }

  static constexpr const char* kText =
      "A lighthouse stands on the northern cliff. Its keeper counts the ships that pass, and writes their names into a "
      "green book.";
  Model model_;
  KvCache full_;
  KvCache compact_;
  std::vector<Question> choices_ = {
      choice("q1", "Where does the lighthouse stand?", {"On the northern cliff", "In a town", "At sea", "Nowhere"}),
      choice("q2", "Who counts?", {"The keeper", "A ship"}),
      choice("q3", "What colour has the book?", {"green", "blue", "red"})};
  std::vector<Question> needles_ = {needle("n1", "castle"), needle("n2", "garden"), needle("n3", "violin")};
};

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

TEST_F(Tasks, FidelityOfTheFullCacheToItselfIsPerfect) {
  for (const Json& answer : ask(*make_task("fidelity"), full_, choices_)) {
    EXPECT_NEAR(answer.at("kl_sum").get<double>(), 0, 1e-6);
    EXPECT_NEAR(answer.at("kl_max").get<double>(), 0, 1e-6);
    EXPECT_EQ(answer.at("top_agreement"), answer.at("n_tokens"));
  }
}

TEST_F(Tasks, FidelityIsTheNaiveDivergence) {
  const std::vector<Json> answers = ask(*make_task("fidelity", {{"max_new_tokens", 7}}), compact_, needles_);
  const std::vector<Json> written = ask(*make_task("exact_match", {{"max_new_tokens", 7}}), full_, needles_);
  for (size_t i = 0; i < needles_.size(); ++i) {
    EXPECT_EQ(answers[i].at("reference_text"), written[i].at("text"));
    const std::vector<int64_t> prompt = make_question_prompt(model_, needles_[i].text, needles_[i].answer_prefix);
    // The reference again, by hand: greedy on the full cache.
    std::vector<int64_t> tokens = prompt;
    const auto n = answers[i].at("n_tokens").get<int64_t>();
    double kl_sum = 0, kl_max = 0, log_likelihood = 0;
    int64_t agreement = 0;
    for (int64_t t = 0; t < n; ++t) {
      const at::Tensor p = naive_log_probabilities(model_, full_, tokens).select(0, -1);
      const at::Tensor q = naive_log_probabilities(model_, compact_, tokens).select(0, -1);
      double kl = 0;
      for (int64_t v = 0; v < p.size(0); ++v) {
        kl += std::exp(p[v].item<double>()) * (p[v].item<double>() - q[v].item<double>());
      }
      kl_sum += kl;
      kl_max = std::max(kl_max, kl);
      tokens.push_back(p.argmax().item<int64_t>());
      log_likelihood += q[tokens.back()].item<double>();
      agreement += q.argmax().item<int64_t>() == tokens.back() ? 1 : 0;
    }
    EXPECT_GT(kl_sum, 1e-4);  // the thinned cache does answer otherwise
    EXPECT_NEAR(answers[i].at("kl_sum").get<double>(), kl_sum, 1e-5 + 1e-3 * kl_sum);
    EXPECT_NEAR(answers[i].at("kl_max").get<double>(), kl_max, 1e-5 + 1e-3 * kl_max);
    EXPECT_NEAR(answers[i].at("log_likelihood_sum").get<double>(), log_likelihood, 1e-3);
    EXPECT_EQ(answers[i].at("top_agreement"), agreement);
  }
}

TEST_F(Tasks, FidelityComparesManyRowsInBlocks) {
  std::vector<Question> questions;
  for (int i = 0; i < 5; ++i) questions.push_back(needle("m" + std::to_string(i), "room " + std::to_string(i)));
  const auto task = make_task("fidelity", {{"max_new_tokens", 60}});  // up to 300 rows, more than one block
  const std::vector<Json> together = ask(*task, compact_, questions);
  for (size_t i = 0; i < questions.size(); ++i) {
    const Json alone = ask(*task, compact_, {questions[i]})[0];
    EXPECT_EQ(together[i].at("n_tokens"), alone.at("n_tokens"));
    EXPECT_NEAR(together[i].at("kl_sum").get<double>(), alone.at("kl_sum").get<double>(), 1e-3);
  }
}

TEST_F(Tasks, FidelityWantsItsReference) {
  const auto task = make_task("fidelity");
  EXPECT_THAT(error_of([&] {
                task->ask({model_, full_, choices_, 5, nullptr});
              }),
              HasSubstr("without the reference of these questions"));
  const auto other = task->reference({model_, full_, needles_, 5, nullptr});
  EXPECT_THAT(error_of([&] {
                task->ask({model_, full_, choices_, 5, other.get()});
              }),
              HasSubstr("without the reference of these questions"));
}

// A tokenizer for which one more token ends a generation.
class EndingTokenizer final : public Tokenizer {
 public:
  EndingTokenizer(Model inner, int64_t end) : inner_(std::move(inner)), end_(end) {}
  std::vector<int64_t> encode(const std::vector<Segment>& segments, std::vector<int64_t>* ends) const override {
    return inner_.tokenizer().encode(segments, ends);
  }
  std::string token_bytes(int64_t id) const override { return inner_.tokenizer().token_bytes(id); }
  bool is_special(int64_t id) const override { return inner_.tokenizer().is_special(id); }
  int64_t vocab_size() const override { return inner_.tokenizer().vocab_size(); }
  std::optional<int64_t> bos() const override { return inner_.tokenizer().bos(); }
  std::vector<int64_t> end_ids() const override { return {end_}; }

 private:
  Model inner_;
  int64_t end_;
};

TEST_F(Tasks, FidelityKeepsAnAnswerThatEndsAtOnce) {
  const std::vector<int64_t> prompt = make_question_prompt(model_, needles_[0].text, needles_[0].answer_prefix);
  const int64_t first = naive_log_probabilities(model_, full_, prompt).select(0, -1).argmax().item<int64_t>();
  const Model ending(Decoder(tiny_spec(), random_weights(tiny_spec(), 11)),
                     std::make_unique<EndingTokenizer>(tiny_model(11), first), make_chat_template("chatml"),
                     Json::object());
  const std::vector<Question> questions = {needles_[0]};
  const auto task = make_task("fidelity");
  const auto reference = task->reference({ending, full_, questions, 5, nullptr});
  const Json answer = task->ask({ending, full_, questions, 5, reference.get()})[0];
  EXPECT_EQ(answer.at("n_tokens"), 1);
  EXPECT_EQ(answer.at("reference_text"), "");
  EXPECT_EQ(answer.at("top_agreement"), 1);
  EXPECT_NEAR(answer.at("log_likelihood_sum").get<double>(),
              naive_log_probabilities(model_, full_, prompt).select(0, -1)[first].item<double>(), 1e-4);
}

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

// --- heads ---

// Attention over all entries of a head, one query at a time, in float64.
struct NaiveHead {
  double mass;
  at::Tensor output;
};
NaiveHead naive_head(const LayerKv& layer, int64_t head, const at::Tensor& query) {
  const at::Tensor keys = layer.head_keys(head).to(at::kDouble), values = layer.head_values(head).to(at::kDouble);
  at::Tensor logits = at::mv(keys, query.to(at::kDouble)) / std::sqrt(static_cast<double>(keys.size(1)));
  if (layer.bias.defined()) logits = logits + layer.head_bias(head).to(at::kDouble);
  const double mass = logits.exp().sum().item<double>();
  return {mass, at::mv(values.t(), logits.exp()) / mass};
}

// With biases: -1 and 2 at the bounds, 0.5 elsewhere.
KvCache biased(const KvCache& cache) {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < cache.n_layers(); ++l) {
    LayerKv layer = cache.layer(l);
    layer.bias = at::full({layer.n_entries()}, 0.5F);
    layer.bias.slice(0, 0, l + 1).fill_(-1.0F);
    if (l == 0) layer.bias.slice(0, 4, 6).fill_(2.0F);
    layers.push_back(layer);
  }
  return {std::move(layers), cache.next_position()};
}

TEST_F(Tasks, HeadErrorsAreTheNaiveOnes) {
  const KvCache compact = biased(compact_);
  const std::vector<Question> questions = {choices_[0], needles_[1]};
  const auto task = make_task("head_errors", {{"max_tokens", 9}});
  const auto reference = task->reference({model_, full_, questions, 5, nullptr});
  Json notes = Json::object();
  const std::vector<Json> answers = task->ask({model_, compact, questions, 5, reference.get(), nullptr, &notes});
  const int64_t n_layers = full_.n_layers(), n_heads = full_.n_kv_heads(), group = model_.spec().group_size();
  std::vector<std::vector<at::Tensor>> queries;  // per question and layer (9, Hq, d)
  for (const Question& question : questions) {
    const std::vector<int64_t> prompt = make_question_prompt(model_, question.text, question.answer_prefix);
    Tails tails = Tails::behind(full_, 1, static_cast<int64_t>(prompt.size()));
    queries.emplace_back();
    model_.decoder().forward(PackedTokens::single(prompt), full_, tails, [&](int64_t, const at::Tensor& q) {
      queries.back().push_back(q.slice(0, q.size(0) - 9).clone());
    });
  }
  std::vector<double> relative(2, 0), cosine(2, 0), mass(2, 0);
  for (int64_t l = 0; l < n_layers; ++l) {
    for (int64_t h = 0; h < n_heads; ++h) {
      double all_distance = 0, all_exact = 0, all_cosine = 0, all_mass = 0;
      for (size_t i = 0; i < 2; ++i) {
        double distance = 0, exact = 0;
        for (int64_t t = 0; t < 9; ++t) {
          for (int64_t g = 0; g < group; ++g) {
            const at::Tensor query = queries[i][static_cast<size_t>(l)][t][h * group + g];
            const NaiveHead a = naive_head(full_.layer(l), h, query), b = naive_head(compact.layer(l), h, query);
            distance += (a.output - b.output).square().sum().item<double>();
            exact += a.output.square().sum().item<double>();
            const double angle = at::cosine_similarity(a.output, b.output, 0).item<double>();
            const double error = std::abs(b.mass / a.mass - 1);
            const auto n = static_cast<double>(9 * group * n_layers * n_heads);
            cosine[i] += angle / n;
            mass[i] += error / n;
            all_cosine += angle / static_cast<double>(18 * group);
            all_mass += error / static_cast<double>(18 * group);
          }
        }
        relative[i] += std::sqrt(distance / exact) / static_cast<double>(n_layers * n_heads);
        all_distance += distance;
        all_exact += exact;
      }
      const Json& heads = notes.at("heads");
      EXPECT_NEAR(heads.at("output_relative")[l][h].get<double>(), std::sqrt(all_distance / all_exact), 1e-4);
      EXPECT_NEAR(heads.at("cosine")[l][h].get<double>(), all_cosine, 1e-4);
      EXPECT_NEAR(heads.at("mass_relative")[l][h].get<double>(), all_mass, 1e-3 * (1 + all_mass));
      const auto len = static_cast<double>(compact.layer(l).head_len(h));
      const double at_bound = h == 0 ? static_cast<double>(l + 1 + (l == 0 ? 2 : 0)) / len : 0;
      EXPECT_NEAR(heads.at("bias_at_bound")[l][h].get<double>(), at_bound, 1e-6) << l << " " << h;
    }
  }
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(answers[i].at("n_queries"), 9 * group);
    EXPECT_NEAR(answers[i].at("output_relative").get<double>(), relative[i], 1e-4);
    EXPECT_NEAR(answers[i].at("cosine").get<double>(), cosine[i], 1e-4);
    EXPECT_NEAR(answers[i].at("mass_relative").get<double>(), mass[i], 1e-3 * (1 + mass[i]));
  }
}

TEST_F(Tasks, HeadErrorsOfTheFullCacheAreNought) {
  const auto task = make_task("head_errors");
  Json notes = Json::object();
  const auto reference = task->reference({model_, full_, choices_, 5, nullptr});
  for (const Json& answer : task->ask({model_, full_, choices_, 5, reference.get(), nullptr, &notes})) {
    EXPECT_EQ(answer.at("output_relative"), 0.0);
    EXPECT_EQ(answer.at("mass_relative"), 0.0);
    EXPECT_NEAR(answer.at("cosine").get<double>(), 1, 1e-6);
  }
  EXPECT_EQ(notes.at("heads").at("bias_at_bound")[0][0], 0.0);
  const auto other = task->reference({model_, full_, needles_, 5, nullptr});
  EXPECT_THAT(error_of([&] {
                task->ask({model_, full_, choices_, 5, other.get()});
              }),
              HasSubstr("without the reference of these questions"));
}

TEST_F(Tasks, AHeadWithoutEntriesGivesNothing) {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < full_.n_layers(); ++l) {
    std::vector<at::Tensor> keys, values, bias(static_cast<size_t>(full_.n_kv_heads()));
    for (int64_t h = 0; h < full_.n_kv_heads(); ++h) {
      keys.push_back(full_.layer(l).head_keys(h).narrow(0, 0, 0));
      values.push_back(full_.layer(l).head_values(h).narrow(0, 0, 0));
    }
    layers.push_back(pack_heads(keys, values, bias));
  }
  const KvCache nothing(std::move(layers), full_.next_position());
  for (const Json& answer : ask(*make_task("head_errors"), nothing, choices_)) {
    EXPECT_NEAR(answer.at("output_relative").get<double>(), 1, 1e-9);
    EXPECT_EQ(answer.at("cosine"), 0.0);
    EXPECT_EQ(answer.at("mass_relative"), 1.0);
  }
}

// --- every registered task ---

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
