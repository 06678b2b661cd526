// The options that every source of queries from a text has.
#pragma once

#include <cstdint>

#include "harness/core/options.h"

namespace kvc {

struct TextQueryOptions {
  int64_t max_queries = 4096;
  bool on_policy = false;

  void text_fields(auto&& visit) {
    visit("max_queries", max_queries, "reference queries per KV head; more tokens are subsampled at random");
    visit("on_policy", on_policy,
          "layer by layer: each layer's queries as the tokens have them behind the compacted layers below");
  }
  void check_text(const OptionCheck& fail) const {
    if (max_queries < 1) fail("max_queries", "is less than 1", "1 or more, e.g. 4096");
  }
};

}  // namespace kvc
