// Methods and query sources with integer options at their limits: a refusal or a result, never an overflow.
#include "harness/testing/integer_options.h"

#include <gtest/gtest.h>

#include "harness/testing/method_scene.h"

namespace kvc {
namespace {

TEST(IntegerOptions, OfMethodsEndInARefusalOrAResult) {
  const Scene& scene = Scene::of(at::kFloat);
  expect_limits_of_integer_options<CompactionMethod>(
      [&](const std::string& /*name*/, const CompactionMethod& method) {
        for (const Compaction& made : scene.compact(method, {every_head(20)})) {
          EXPECT_GT(made.cache.n_entries(), 0);
        }
      },
      [](const std::string& name) {
        return name == "cartridge" ? Json{{"steps", 1}, {"batch_tokens", 64}, {"text_tokens", 64}, {"conversations", 2}}
                                   : Json::object();
      });
}

TEST(IntegerOptions, OfQuerySourcesEndInARefusalOrAResult) {
  const Scene& scene = Scene::of(at::kFloat);
  Question question;
  question.text = "What lies on the ground of the lake?";
  const std::vector<Question> questions = {question};
  expect_limits_of_integer_options<QuerySource>(
      [&](const std::string& name, const QuerySource& source) {
        const auto queries =
            source.make({scene.model, scene.context, scene.full, 5, source.question_aware() ? &questions : nullptr});
        EXPECT_EQ(queries->layer(0, nullptr).size(1), queries->n_queries()) << name;
      },
      [](const std::string& name) {
        return name == "mix" ? Json{{"sources",
                                     {{{"queries", "context_prefill"}, {"fraction", 0.5}},
                                      {{"queries", "cache_keys"}, {"fraction", 0.5}}}}}
                             : Json::object();
      });
}

}  // namespace
}  // namespace kvc
