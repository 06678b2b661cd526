// A tiny model with a document read, whole and thinned, and questions: what the tests of tasks share.
#pragma once

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "harness/api/context.h"
#include "harness/api/task.h"
#include "harness/testing/checks.h"
#include "harness/testing/tiny_model.h"

namespace kvc {

using ::testing::HasSubstr;

inline std::unique_ptr<Task> make_task(const std::string& name, const Json& options = {}) {
  return Registry<Task>::instance().create(name, options);
}

inline Question choice(const std::string& id, const std::string& text, const std::vector<std::string>& options) {
  Question question;
  question.id = id;
  question.text = text;
  question.options = options;
  question.gold_option = 0;
  return question;
}

inline Question needle(const std::string& id, const std::string& subject) {
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
inline at::Tensor naive_log_probabilities(const Model& model, const KvCache& cache,
                                          const std::vector<int64_t>& tokens) {
  Tails tails = Tails::behind(cache, 1, static_cast<int64_t>(tokens.size()));
  const at::Tensor hidden = model.decoder().forward(PackedTokens::single(tokens), cache, tails);
  return at::log_softmax(model.decoder().logits(hidden).to(at::kDouble), -1);
}

inline std::vector<int64_t> joined(std::vector<int64_t> a, const std::vector<int64_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Every second entry of the cache: something that answers otherwise.
inline KvCache thinned(const KvCache& cache) {
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

}  // namespace kvc
