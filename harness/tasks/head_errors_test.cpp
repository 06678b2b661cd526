#include "harness/tasks/task_fixture_test.h"

namespace kvc {
namespace {

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

}  // namespace
}  // namespace kvc
