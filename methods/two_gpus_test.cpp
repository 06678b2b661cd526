// A model spread over two GPUs that are pretended: shapes, devices and branches are a GPU's, numbers are none. An
// operation on tensors of both GPUs would throw.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "harness/api/compaction_method.h"
#include "harness/api/read_document.h"
#include "harness/core/registry.h"
#include "harness/model/generate.h"
#include "harness/testing/pretended_gpu.h"
#include "harness/testing/spread_model.h"

namespace kvc {
namespace {

const c10::Device kFirst(c10::kCUDA, 0), kSecond(c10::kCUDA, 1);

class TwoGpus : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    if (!pretended::install_gpu()) GTEST_SKIP() << "this LibTorch has CUDA: nothing is pretended beside it";
  }
  static void expect_spread(const KvCache& cache) {
    EXPECT_EQ(cache.layer(0).keys.device(), kFirst);
    EXPECT_EQ(cache.layer(0).values.device(), kFirst);
    EXPECT_EQ(cache.layer(1).keys.device(), kSecond);
    EXPECT_EQ(cache.layer(1).values.device(), kSecond);
  }
  const c10::InferenceMode inference_;
};
INSTANTIATE_TEST_SUITE_P(Types, TwoGpus, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) { return std::string(toString(test.param)); });

TEST_P(TwoGpus, MixedUpTensorsAreAnError) {
  const at::Tensor one = at::empty({3}, at::TensorOptions(kFirst)), other = at::empty({3}, at::TensorOptions(kSecond));
  EXPECT_EQ((other + other).device(), kSecond);
  EXPECT_EQ(one.to(kSecond).device(), kSecond);
  EXPECT_THROW((void)(one + other), c10::Error);
}

TEST_P(TwoGpus, ATextIsReadAndAnswersAreWritten) {
  const Model model = spread_model(3, GetParam(), kFirst, kSecond);
  EXPECT_TRUE(model.decoder().is_spread());
  const KvCache cache = model.decoder().prefill(make_context(model, "The lake is deep and cold.").tokens);
  expect_spread(cache);
  DecodeSettings settings;
  settings.max_new_tokens = 6;
  const auto prompt = [&](const char* text) { return make_question_prompt(model, text); };
  const std::vector<Generation> written =
      generate(model, cache, {prompt("How deep?"), prompt("How cold is the water?")}, settings, {});
  ASSERT_EQ(written.size(), 2U);
  EXPECT_EQ(written[1].tokens.size(), 6U);
}

TEST_P(TwoGpus, CachesAreCompactedWhereTheyLie) {
  const Model model = spread_model(3, GetParam(), kFirst, kSecond);
  const Context context = make_context(model, "The lake is deep and cold. In winter nobody swims there.");
  const KvCache full = model.decoder().prefill(context.tokens);
  const auto source = Registry<QuerySource>::instance().create("repeat_prefill", Json::object());
  const auto queries = source->make({model, context, full, 5});
  for (const char* name : {"am_highest_attention", "am_omp", "cam", "d2o", "snapkv", "kvzip", "keydiff", "key_norm",
                           "tova", "streaming_llm", "expected_attention", "random_keys"}) {
    SCOPED_TRACE(name);
    const auto method = Registry<CompactionMethod>::instance().create(name, Json::object());
    HeadBudget budget;
    budget.target_len = {2, std::vector<int64_t>(2, 1)};  // indices that are read back are all 1
    (void)pretended::take_gpu_counts();
    std::vector<Compaction> made;
    EXPECT_NO_THROW(made = method->compact(
                        {model, context, full, {context.prefix_len, context.suffix_len}, queries.get(), {budget}, 1}));
    EXPECT_TRUE(pretended::take_gpu_counts().races.empty()) << "sums whose bits differ from run to run";
    if (made.empty()) continue;
    ASSERT_EQ(made.size(), 1U) << name;
    expect_spread(made[0].cache);
  }
}

}  // namespace
}  // namespace kvc
