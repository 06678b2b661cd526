// How a target size is spread over layers and KV heads. A rule is an argument of a sweep, never part of a method: any
// rule goes with any method (adaptive ones with methods that score their keys).
#pragma once

#include <cstdint>
#include <vector>

#include "harness/core/registry.h"
#include "harness/kv/head_budget.h"

namespace kvc {

struct BudgetRequest {
  TargetSize target;
  HeadTable<int64_t> source_len;  // compactable entries
  EntrySizes sizes = {};          // for targets in bytes
};

class BudgetRule {
 public:
  virtual ~BudgetRule() = default;
  // The lengths sum to that of uniform_budget(), whatever the rule. Throws Error(kData) when the target is less than an
  // entry or more than there are, or does not fit under the rule's own limits.
  virtual HeadBudget spread(const BudgetRequest& request) const = 0;
  // {content_hash} of a file the rule reads; what the result depends on besides options.
  virtual Json identity() const { return Json::object(); }
};

#define KVC_REGISTER_BUDGET(Class, name, source) KVC_REGISTER(::kvc::BudgetRule, Class, name, source)

}  // namespace kvc
