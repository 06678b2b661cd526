#include "harness/head_budgets/future_utility.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "harness/api/budget_rule.h"
#include "harness/core/error.h"
#include "harness/testing/method_scene.h"

namespace kvc {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// Two heads of ten entries. The first has all its utility in three entries that its scores find; the second's is even,
// whatever its scores say.
TEST(UtilityProfile, TakesFromTheHeadThatLosesLeast) {
  std::vector<double> peak(10, 0.0), even(10, 0.1);
  peak[2] = peak[5] = peak[9] = 1;
  std::vector<float> knowing(10, 0.0F), some(10);
  knowing[2] = knowing[5] = knowing[9] = 1;
  for (size_t i = 0; i < 10; ++i) some[i] = static_cast<float>(i);
  const UtilityProfile profile = profile_of({peak, even}, {knowing, some});
  ASSERT_EQ(profile.size(), 99U);
  EXPECT_THAT(profile[34], ElementsAre(DoubleNear(0.7, 1e-12), 0.0));  // 7 of 20: all from the peaked
  EXPECT_THAT(profile[49], ElementsAre(DoubleNear(0.7, 1e-12), DoubleNear(0.3, 1e-12)));  // then from the even one
  EXPECT_THAT(profile[79], ElementsAre(DoubleNear(0.7, 1e-12), DoubleNear(0.9, 1e-12)));  // which keeps one
  EXPECT_THAT(profile[98], ElementsAre(DoubleNear(0.9, 1e-12), DoubleNear(0.9, 1e-12)));  // and so does the other
}

// A head whose scores mislead would lose its best entry first; what follows is worth as much on average, so its hull is
// a straight line and it is as dear from the start.
TEST(UtilityProfile, ScoresThatMisleadMakeAHeadDear) {
  const std::vector<double> utilities = {4, 0, 0, 0}, flat(4, 0.5);
  const std::vector<float> wrong = {0, 1, 2, 3};
  const UtilityProfile profile = profile_of({utilities, flat}, {wrong, wrong});
  EXPECT_THAT(profile[36], ElementsAre(0.0, DoubleNear(0.75, 1e-12)));  // 3 of 8 from the flat head
}

TEST(UtilityProfile, RefusesListsOfDifferentLengths) {
  EXPECT_THROW(profile_of({{1, 2}}, {{1}}), Error);
  EXPECT_THROW(profile_of({}, {}), Error);
}

// The rule reads what the profile writes.
TEST(UtilityProfile, IsAFileForTheRule) {
  UtilityProfile profile(99, std::vector<double>(4, 0.0));
  for (size_t step = 0; step < 99; ++step) {
    const double gone = static_cast<double>(step + 1) / 100;
    profile[step] = {gone / 2, gone, gone, std::min(1.0, gone * 1.5)};
  }
  const std::string path = ::testing::TempDir() + "kvc_profile.npy";
  const std::string bytes = profile_as_npy(profile, 2);
  EXPECT_EQ(bytes.size() % 64, (99 * 4 * 8) % 64U);
  std::ofstream(path, std::ios::binary) << bytes;
  const auto rule = Registry<BudgetRule>::instance().create("lu_kv", {{"file", path}});
  TargetSize target;
  target.fraction = 0.5;
  // 50 % gone: 0.75, 0.5, 0.5 and 0.25 of 100 are kept.
  EXPECT_EQ(rule->spread({target, {{100, 100}, {100, 100}}}).target_len, (HeadTable<int64_t>{{75, 50}, {50, 25}}));
  target.fraction = 1;
  EXPECT_EQ(rule->spread({target, {{100, 100}, {100, 100}}}).target_len, (HeadTable<int64_t>{{100, 100}, {100, 100}}));
  const auto refusal = [&](const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
    try {
      Registry<BudgetRule>::instance().create("lu_kv", {{"file", path}});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(refusal("{}"), HasSubstr("this is not a NumPy file"));
  EXPECT_THAT(refusal(bytes.substr(0, 300)), HasSubstr("bytes of numbers, the shape asks for 3168"));
  EXPECT_THAT(refusal(bytes.substr(0, 20)), HasSubstr("the header is cut off"));
  std::string other = bytes;
  other.replace(other.find("(99, "), 5, "(98, ");
  EXPECT_THAT(refusal(other), HasSubstr("the shape is not (99, layers, KV heads)"));
  other = bytes;
  other.replace(other.find("<f8"), 3, "<i8");
  EXPECT_THAT(refusal(other), HasSubstr("not float64 or float32"));
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_THAT(
      [&] {
        Registry<BudgetRule>::instance().create("lu_kv", {{"file", path}})->spread({target, {{9, 9}}});
      },
      ThrowsMessage<Error>(HasSubstr("of a model with 2 layers of 2 KV heads; this one has 1 of 2")));
}

// Weights of one step written out: over the whole context and the text so far.
TEST(FutureUtilities, AreTheLargestWeightsTimesWhatIsWritten) {
  const c10::InferenceMode inference;
  const Scene& scene = Scene::of(at::kFloat);
  const ReadDocument read = ReadDocument::read(scene.model, kArticle);
  const ProbeText text{make_question_prompt(scene.model, "What lies on the ground?"), {65, 32, 98}};
  const auto found = future_utilities(scene.model, read, {text});
  ASSERT_EQ(found.size(), 1U);
  ASSERT_EQ(found[0].size(), static_cast<size_t>(kLayers * kKvHeads));
  // The text as a part of one long prompt: its queries and keys come from a prefill.
  std::vector<int64_t> tokens = read.context.tokens;
  tokens.insert(tokens.end(), text.prompt.begin(), text.prompt.end());
  tokens.insert(tokens.end(), text.answer.begin(), text.answer.end());
  std::vector<at::Tensor> queries(kLayers);
  const KvCache whole =
      scene.model.decoder().prefill(tokens, 4096, [&](int64_t layer, int64_t /*first*/, const at::Tensor& here) {
        queries[static_cast<size_t>(layer)] = here.to(at::kDouble);
      });
  const auto context_len = static_cast<int64_t>(read.context.tokens.size());
  const int64_t group_size = scene.model.spec().group_size(), d = scene.model.spec().head_dim;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const at::Tensor projection =
        scene.model.decoder().weights().layers[static_cast<size_t>(layer)].attention_output.to(at::kDouble);
    std::vector<at::Tensor> norms;
    double sum = 0;
    for (int64_t head = 0; head < kKvHeads * group_size; ++head) {
      const at::Tensor values = whole.layer(layer).head_values(head / group_size).narrow(0, 0, context_len);
      norms.push_back(at::mm(values.to(at::kDouble), projection.narrow(1, head * d, d).t()).square().sum(1).sqrt());
      sum += norms.back().sum().item<double>();
    }
    for (int64_t kv = 0; kv < kKvHeads; ++kv) {
      at::Tensor judge = at::zeros({context_len}, at::kDouble);
      const at::Tensor keys = whole.layer(layer).head_keys(kv).to(at::kDouble);
      for (int64_t g = 0; g < group_size; ++g) {
        const int64_t head = kv * group_size + g;
        for (const int64_t back : {3, 2}) {  // the last token of the answer is never read
          const int64_t at = static_cast<int64_t>(tokens.size()) - back;
          const at::Tensor logits =
              at::mv(keys.narrow(0, 0, at + 1), queries[static_cast<size_t>(layer)][at][head]) / std::sqrt(double(d));
          judge = at::maximum(
              judge, at::softmax(logits, 0).narrow(0, 0, context_len) * norms[static_cast<size_t>(head)] / sum);
        }
      }
      const std::vector<double>& row = found[0][static_cast<size_t>(layer * kKvHeads + kv)];
      ASSERT_EQ(static_cast<int64_t>(row.size()), read.context.article_len());
      for (size_t j = 0; j < row.size(); ++j) {
        const double wanted = judge[read.context.prefix_len + static_cast<int64_t>(j)].item<double>();
        EXPECT_NEAR(row[j], wanted, 1e-3 * wanted + 1e-12) << "layer " << layer << ", head " << kv << ", entry " << j;
      }
    }
  }
}

}  // namespace
}  // namespace kvc
