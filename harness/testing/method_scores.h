// What tests of scores need: judges compared with a method's scores, refusals, and one head of a scene.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "harness/core/error.h"
#include "harness/testing/checks.h"
#include "harness/testing/method_heads.h"
#include "harness/testing/method_scene.h"

namespace kvc {

inline void expect_scores(const at::Tensor& found, const std::vector<double>& judge, double relative = 1e-4) {
  ASSERT_EQ(found.scalar_type(), at::kFloat);
  ASSERT_EQ(found.sizes().vec(), std::vector<int64_t>{static_cast<int64_t>(judge.size())});
  for (size_t j = 0; j < judge.size(); ++j) {
    const auto score = found[static_cast<int64_t>(j)].item<double>();
    if (std::isinf(judge[j])) {
      EXPECT_EQ(score, judge[j]) << "entry " << j;
    } else {
      EXPECT_NEAR(score, judge[j], relative * std::abs(judge[j]) + 1e-9) << "entry " << j;
    }
  }
}

// What a kUsage error says.
inline std::string usage_refusal(const std::function<void()>& act) {
  return error_of(ErrorKind::kUsage, [&] { act(); });
}

inline HeadProblem scene_head(const Scene& scene, const CompactionRequest& request, int64_t layer, int64_t kv_head) {
  const auto span = [&](const at::Tensor& whole) {
    return whole.narrow(0, scene.context.prefix_len, scene.source_len());
  };
  HeadProblem head;
  head.keys = span(request.cache.layer(layer).head_keys(kv_head));
  head.values = span(request.cache.layer(layer).head_values(kv_head));
  head.queries = request.queries->layer(layer, nullptr).select(0, kv_head);
  head.window_queries = [&request, layer, kv_head](int64_t n) {
    return request.queries->window(layer, n).select(0, kv_head);
  };
  head.layer = layer;
  head.kv_head = kv_head;
  head.request = &request;
  return head;
}

inline CompactionRequest scene_request(const Scene& scene, const LayerQueries& queries) {
  return {
      scene.model, scene.context, scene.full, {scene.context.prefix_len, scene.context.suffix_len}, &queries, {}, 1};
}

}  // namespace kvc
