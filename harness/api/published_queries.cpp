#include "harness/api/published_queries.h"

namespace kvc {

std::string published_queries(const CompactionMethod& method) {
  if (!method.needs_queries()) return "";
  const auto* own = dynamic_cast<const PublishedQueries*>(&method);
  return own != nullptr ? own->published_queries() : "repeat_prefill";
}

}  // namespace kvc
