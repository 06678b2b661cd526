// Against the naive divergence of two distributions, a text at a time in float64.
#include "harness/tasks/task_fixture_test.h"

namespace kvc {
namespace {

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

}  // namespace
}  // namespace kvc
