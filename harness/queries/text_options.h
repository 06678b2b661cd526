// The options that every source of queries from a text has.
#pragma once

#include <cstdint>

#include "harness/core/options.h"

namespace kvc {

struct TextQueryOptions {
  int64_t max_queries = 4096;
  bool on_policy = false;

  void fields(auto&& visit) {
    visit("max_queries", max_queries, "reference queries per KV head; more tokens are subsampled at random",
          at_least(1));
    visit("on_policy", on_policy, "recompute each layer's queries on the compacted layers below");
  }
};

}  // namespace kvc
