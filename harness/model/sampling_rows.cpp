#include "harness/model/sampling_rows.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <tuple>
#include <utility>

#include "harness/model/sampling.h"

namespace kvc {

namespace {

std::span<const float> row_of(const at::Tensor& rows, int64_t row) {
  return {rows.const_data_ptr<float>() + row * rows.size(1), static_cast<size_t>(rows.size(1))};
}

}  // namespace

std::vector<int64_t> greedy_tokens(const at::Tensor& logits) {
  // The first of equal logits is found, and NaN is greater than any number: both as LibTorch promises.
  const auto [highest, index] = at::max(logits, 1);
  const at::Tensor found = at::stack({highest.to(at::kDouble), index.to(at::kDouble)}).cpu();
  const auto* scores = found.const_data_ptr<double>();
  std::vector<int64_t> tokens;
  for (int64_t row = 0; row < logits.size(0); ++row) {
    const auto score = static_cast<float>(scores[row]);
    greedy_token({&score, 1});  // refuses what is not finite
    tokens.push_back(static_cast<int64_t>(scores[logits.size(0) + row]));
  }
  return tokens;
}

std::vector<int64_t> sampled_tokens(const at::Tensor& logits, double temperature, int64_t top_k, double top_p,
                                    double min_p, const std::function<std::mt19937_64&(int64_t row)>& random) {
  const int64_t n = logits.size(0);
  std::vector<int64_t> tokens;
  if (top_k <= 0 || top_k >= logits.size(1) || top_k > kMostOnDevice) {
    const at::Tensor rows = logits.cpu().contiguous();
    for (int64_t row = 0; row < n; ++row) {
      tokens.push_back(sampled_token(row_of(rows, row), temperature, top_k, top_p, min_p, random(row)));
    }
    return tokens;
  }
  // One more than asked for: shows whether the cut goes through equal logits, whose order LibTorch leaves open.
  const int64_t k = top_k + 1;
  const auto [highest, index] = at::topk(logits, k, 1);
  const at::Tensor found =
      at::cat({highest.to(at::kDouble), index.to(at::kDouble), at::amax(logits, 1, true).to(at::kDouble)}, 1).cpu();
  for (int64_t row = 0; row < n; ++row) {
    const double* scores = found.const_data_ptr<double>() + row * (2 * k + 1);
    const auto most = static_cast<float>(scores[2 * k]);
    greedy_token({&most, 1});  // refuses NaN anywhere in the row
    if (scores[k - 2] == scores[k - 1]) {
      const at::Tensor whole = logits.narrow(0, row, 1).cpu().contiguous();
      tokens.push_back(sampled_token(row_of(whole, 0), temperature, top_k, top_p, min_p, random(row)));
      continue;
    }
    std::vector<std::pair<double, int64_t>> order;
    for (int64_t i = 0; i < top_k; ++i) order.emplace_back(-scores[i], static_cast<int64_t>(scores[k + i]));
    std::sort(order.begin(), order.end());  // lower ids first among equals
    std::vector<float> candidates;
    for (const auto& [negated, token] : order) candidates.push_back(static_cast<float>(-negated));
    const int64_t place = sampled_token(candidates, temperature, 0, top_p, min_p, random(row));
    tokens.push_back(order[static_cast<size_t>(place)].second);
  }
  return tokens;
}

}  // namespace kvc
