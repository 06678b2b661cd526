#include "harness/sweep/online_sizes.h"

#include <algorithm>
#include <cmath>

namespace kvc {
namespace {

struct Sums {
  double n = 0, prompt = 0, tokens = 0, entries = 0, bytes = 0, peak = 0;
};

}  // namespace

OnlineCost online_cost(const std::vector<Json>& answers, const DecoderSpec& spec, std::int64_t element_bytes) {
  OnlineCost cost;
  Sums sums;
  for (const Json& answer : answers) {
    for (const Json& sample : answer.at("samples")) {
      sums.n += 1;
      sums.prompt += answer.at("prompt_tokens").get<double>();
      sums.tokens += sample.at("next_position").get<double>();
      sums.entries += sample.at("final_entries").get<double>();
      sums.bytes += sample.at("final_bytes").get<double>();
      sums.peak = std::max(sums.peak, sample.at("peak_entries").get<double>());
      for (const Json& step : sample.at("compactions")) {
        cost.compaction_s += step.at("seconds").get<double>();
        cost.drift_s += step.at("drift_s").get<double>();
      }
    }
  }
  if (sums.n == 0) return cost;
  const auto n_heads = static_cast<double>(spec.n_layers * spec.n_kv_heads);
  const double full_entries = sums.tokens * n_heads;
  const double full_bytes = full_entries * 2 * static_cast<double>(spec.head_dim * element_bytes);
  cost.sizes = Json{{"context_tokens", sums.prompt / sums.n},       {"compactable_tokens", sums.tokens / sums.n},
                    {"entries_before", full_entries / sums.n},      {"entries_after", sums.entries / sums.n},
                    {"kept_fraction", sums.entries / full_entries}, {"compaction_ratio", full_entries / sums.entries},
                    {"bytes_before", full_bytes / sums.n},          {"bytes_after", sums.bytes / sums.n},
                    {"bytes_ratio", full_bytes / sums.bytes},       {"head_len_mean", sums.entries / n_heads / sums.n},
                    {"head_len_max", std::ceil(sums.peak)}};
  return cost;
}

}  // namespace kvc
