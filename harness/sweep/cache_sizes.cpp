#include "harness/sweep/cache_sizes.h"

#include <algorithm>
#include <vector>

#include "harness/sweep/run_info.h"

namespace kvc {
namespace {

Json ratio(double numerator, double denominator) {
  return denominator > 0 ? Json(numerator / denominator) : Json(nullptr);
}

// Of all heads of all layers.
std::vector<int64_t> head_lengths(const KvCache& cache) {
  std::vector<int64_t> lengths;
  for (int64_t layer = 0; layer < cache.n_layers(); ++layer) {
    for (int64_t head = 0; head < cache.n_kv_heads(); ++head) lengths.push_back(cache.layer(layer).head_len(head));
  }
  return lengths;
}

}  // namespace

Json cache_sizes(const ReadDocument& read, const KvCache& compact, int64_t question_tokens, int64_t n_queries) {
  const int64_t n_heads = read.full.n_layers() * read.full.n_kv_heads();
  const int64_t kept_always = n_heads * (read.context.prefix_len + read.context.suffix_len);
  // A method that builds a cache of its own may keep less than the template.
  const int64_t kept = std::max<int64_t>(0, compact.n_entries() - kept_always);
  const auto span = static_cast<double>(n_heads * read.context.article_len());
  const std::vector<int64_t> lengths = head_lengths(compact);
  const auto [least, most] = std::minmax_element(lengths.begin(), lengths.end());
  return Json{{"context_tokens", read.context.tokens.size()},
              {"compactable_tokens", read.context.article_len()},
              {"question_tokens", question_tokens},
              {"entries_before", read.full.n_entries()},
              {"entries_after", compact.n_entries()},
              {"kept_fraction", static_cast<double>(kept) / span},
              {"compaction_ratio", ratio(span, static_cast<double>(kept))},
              {"bytes_before", read.full.bytes()},
              {"bytes_after", compact.bytes()},
              {"bytes_ratio", ratio(static_cast<double>(read.full.bytes()), static_cast<double>(compact.bytes()))},
              {"allocated_bytes_after", compact.allocated_bytes()},
              {"head_len_min", *least},
              {"head_len_mean", static_cast<double>(compact.n_entries()) / static_cast<double>(lengths.size())},
              {"head_len_max", *most},
              {"n_queries", n_queries}};
}

Json mean_sizes(const std::vector<Json>& each) {
  Json mean = each.front();
  for (auto& [name, value] : mean.items()) {
    double sum = 0;
    bool same = true;
    for (const Json& one : each) {
      same = same && one.at(name) == value;
      sum += one.at(name).is_number() ? one.at(name).get<double>() : 0;
    }
    if (!same) value = sum / static_cast<double>(each.size());
  }
  return mean;
}

}  // namespace kvc
