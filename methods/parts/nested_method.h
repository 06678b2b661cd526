// A method on the cache inside another method's options: {method: NAME, queries: NAME, option: value}, as an entry of a
// sweep has it.
#pragma once

#include <memory>
#include <string>

#include "harness/api/compaction_method.h"

namespace kvc {

struct NestedMethod {
  std::unique_ptr<CompactionMethod> method;
  std::unique_ptr<QuerySource> queries;  // nullptr where the method asks for none

  // Fills in names and options of the entry; what is wrong becomes a problem at `pointer`. The method must compact a
  // cache to a target, and must not be `outer`, the method whose option it is: nothing is nested without end.
  static void complete(Json& value, const std::string& outer, const std::string& pointer, Problems& problems);
  // Of a value that complete() has filled in.
  explicit NestedMethod(Json value);
};

}  // namespace kvc
