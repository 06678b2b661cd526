#include "harness/model/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "harness/core/error.h"

namespace kvc {

namespace {

[[noreturn]] void refuse_logits() {
  throw Error(ErrorKind::kData, "the model's logits are not finite", "choosing the next token",
              "the weights are damaged, or their numbers overflow the compute dtype: try dtype float32");
}

// The order of tokens by falling logit, lower ids first among equals, as far as `enough(sorted prefix)` asks for it.
template <class Enough>
std::vector<int64_t> most_probable(std::span<const float> logits, const Enough& enough) {
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto before = [&](int64_t a, int64_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  // A nucleus is mostly small: sorting a whole vocabulary for it would cost more than the model's step.
  size_t sorted = 0;
  for (size_t wanted = 64; sorted < order.size(); wanted *= 4) {
    const size_t end = std::min(wanted, order.size());
    const auto first = order.begin() + static_cast<std::ptrdiff_t>(sorted);
    std::partial_sort(first, order.begin() + static_cast<std::ptrdiff_t>(end), order.end(), before);
    for (; sorted < end; ++sorted) {
      if (enough(order[sorted])) {
        order.resize(sorted + 1);
        return order;
      }
    }
  }
  return order;
}

// The token in `tokens` at which the running sum of weights passes u times their total.
int64_t draw(const std::vector<int64_t>& tokens, const std::vector<double>& weights, double u) {
  double total = 0;
  for (const int64_t token : tokens) total += weights[static_cast<size_t>(token)];
  double running = 0;
  int64_t last = tokens.front();
  for (const int64_t token : tokens) {
    const double weight = weights[static_cast<size_t>(token)];
    if (weight <= 0) continue;
    running += weight;
    last = token;
    if (running > u * total) return token;
  }
  return last;  // u * total rounded up to the whole sum
}

}  // namespace

int64_t greedy_token(std::span<const float> logits) {
  int64_t best = -1;
  float highest = -INFINITY;
  bool whole = true;
  for (size_t i = 0; i < logits.size(); ++i) {
    whole = whole && !std::isnan(logits[i]);
    if (logits[i] > highest) {
      highest = logits[i];
      best = static_cast<int64_t>(i);
    }
  }
  if (!whole || best < 0 || std::isinf(highest)) refuse_logits();
  return best;
}

int64_t sampled_token(std::span<const float> logits, double temperature, int64_t top_k, double top_p, double min_p,
                      std::mt19937_64& random) {
  constexpr double kUnit = 0x1.0p-53;
  const double u = static_cast<double>(random() >> 11U) * kUnit;  // [0, 1), the same on every platform
  const double highest = static_cast<double>(logits[static_cast<size_t>(greedy_token(logits))]);
  std::vector<double> weights(logits.size());
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    weights[i] = std::exp((static_cast<double>(logits[i]) - highest) / temperature);
    total += weights[i];
  }
  std::vector<int64_t> candidates;
  const auto n_tokens = static_cast<int64_t>(logits.size());
  if (top_k > 0 && top_k < n_tokens) {
    int64_t taken = 0;
    candidates = most_probable(logits, [&](int64_t) { return ++taken == top_k; });
    total = 0;
    for (const int64_t token : candidates) total += weights[static_cast<size_t>(token)];
  }
  if (top_p < 1) {
    double reached = 0;
    const auto enough = [&](int64_t token) {
      reached += weights[static_cast<size_t>(token)];
      return reached >= top_p * total;
    };
    if (candidates.empty()) {
      candidates = most_probable(logits, enough);
    } else {
      const auto last = std::find_if(candidates.begin(), candidates.end(), enough);
      if (last != candidates.end()) candidates.erase(last + 1, candidates.end());
    }
  }
  if (candidates.empty()) {
    candidates.resize(logits.size());
    std::iota(candidates.begin(), candidates.end(), int64_t{0});
  }
  if (min_p > 0) {  // the likeliest token has weight 1, so something is always left
    std::erase_if(candidates, [&](int64_t token) { return weights[static_cast<size_t>(token)] < min_p; });
  }
  return draw(candidates, weights, u);
}

}  // namespace kvc
