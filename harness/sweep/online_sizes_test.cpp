#include "harness/sweep/online_sizes.h"

#include <gtest/gtest.h>

namespace kvc {
namespace {

Json sample(int64_t next_position, int64_t final_entries, double peak, std::vector<double> seconds) {
  Json steps = Json::array();
  for (const double s : seconds) steps.push_back({{"seconds", s}, {"drift_s", s / 3}});
  return {{"next_position", next_position},
          {"final_entries", final_entries},
          {"final_bytes", final_entries * 64},
          {"peak_entries", peak},
          {"compactions", std::move(steps)}};
}

// 2 layers of 3 KV heads of dimension 16 in bfloat16: an entry has 64 bytes, a token 6 entries.
TEST(OnlineCost, ComparesTheCacheAtTheEndWithAllTokens) {
  DecoderSpec spec;
  spec.n_layers = 2;
  spec.n_kv_heads = 3;
  spec.head_dim = 16;
  const std::vector<Json> answers = {
      {{"prompt_tokens", 30}, {"samples", {sample(100, 600, 100, {}), sample(300, 600, 127.5, {1.5, 0.25})}}},
      {{"prompt_tokens", 60}, {"samples", {sample(200, 1200, 200, {}), sample(200, 600, 160, {2.0})}}}};
  const OnlineCost cost = online_cost(answers, spec, 2);
  EXPECT_DOUBLE_EQ(cost.compaction_s, 3.75);
  EXPECT_DOUBLE_EQ(cost.drift_s, 1.25);
  EXPECT_EQ(cost.sizes["context_tokens"], 45.0);
  EXPECT_EQ(cost.sizes["compactable_tokens"], 200.0);
  EXPECT_EQ(cost.sizes["entries_before"], 1200.0);
  EXPECT_EQ(cost.sizes["entries_after"], 750.0);
  EXPECT_EQ(cost.sizes["kept_fraction"], 3000.0 / 4800.0);
  EXPECT_EQ(cost.sizes["compaction_ratio"], 1.6);
  EXPECT_EQ(cost.sizes["bytes_before"], 1200.0 * 64);
  EXPECT_EQ(cost.sizes["bytes_after"], 750.0 * 64);
  EXPECT_EQ(cost.sizes["bytes_ratio"], 1.6);
  EXPECT_EQ(cost.sizes["head_len_max"], 200.0);
  EXPECT_TRUE(online_cost({}, spec, 2).sizes.empty());
}

}  // namespace
}  // namespace kvc
