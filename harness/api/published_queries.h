// Which query source a method gets where the user names none: the one its paper uses.
#pragma once

#include <string>

#include "harness/api/compaction_method.h"

namespace kvc {

// A second base of methods whose paper uses another source than repeat_prefill.
class PublishedQueries {
 public:
  virtual ~PublishedQueries() = default;
  virtual std::string published_queries() const = 0;  // name of a query source
};

// What the method says, or "repeat_prefill" where it says nothing; "" for a method without queries.
std::string published_queries(const CompactionMethod& method);

}  // namespace kvc
