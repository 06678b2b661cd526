// How large a compact cache is beside the full one: the sizes of a record.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/api/read_document.h"
#include "harness/core/config_text.h"

namespace kvc {

// Tokens, entries (over all heads), bytes and the lengths of heads, before and after. What the template put around the
// document is kept always and is left out of kept_fraction and compaction_ratio. A ratio by nothing is null. The
// tokens of all questions and the reference queries per head are the caller's.
Json cache_sizes(const ReadDocument& read, const KvCache& compact, int64_t question_tokens, int64_t n_queries);

// Means over several caches of one document; what is the same for all stays the number it is.
Json mean_sizes(const std::vector<Json>& each);

}  // namespace kvc
