// A method on the cache inside another method's options: {method: NAME, queries: NAME, option: value}, as an entry of a
// sweep has it; with a `budget` too where the outer method has none of its own to give.
#pragma once

#include <memory>
#include <string>

#include "harness/api/budget_rule.h"
#include "harness/api/compaction_method.h"

namespace kvc {

// True, and a problem, when the entry names `outer`, the method whose option it is: looked at before the entry's own
// options are, so that nothing is nested without end.
bool refuse_itself(const Json& value, const std::string& outer, const std::string& pointer, Problems& problems);

struct NestedMethod {
  std::unique_ptr<CompactionMethod> method;
  std::unique_ptr<QuerySource> queries;  // nullptr where the method asks for none
  std::unique_ptr<BudgetRule> budget;    // nullptr unless kOwn

  enum class Budget { kOfOuter, kOwn };

  // Fills in names and options of the entry; what is wrong becomes a problem at `pointer`. The method must compact a
  // cache to a target, and must not be `outer`.
  static void complete(Json& value, const std::string& outer, const std::string& pointer, Problems& problems,
                       Budget budget = Budget::kOfOuter);
  // Of a value that complete() has filled in.
  explicit NestedMethod(Json value);
};

}  // namespace kvc
