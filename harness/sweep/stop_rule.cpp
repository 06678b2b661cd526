#include "harness/sweep/stop_rule.h"

#include <algorithm>
#include <utility>

#include "harness/core/stable_hash.h"
#include "harness/sweep/coverage.h"

namespace kvc {

std::vector<std::string> shuffled_documents(std::vector<std::string> ids, std::uint64_t seed) {
  const auto key = [&](const std::string& id) { return std::pair(derive_seed(seed, "order/" + id), id); };
  std::sort(ids.begin(), ids.end(), [&](const std::string& a, const std::string& b) { return key(a) < key(b); });
  return ids;
}

Json stopped_cells(const std::string& folder) {
  const std::string path = folder + "/stopped.json";
  const Json stopped = read_json_of_run(path);
  if (stopped.is_null()) return Json::object();
  const bool readable = stopped.is_object() &&
                        std::all_of(stopped.begin(), stopped.end(), [](const Json& cell) { return cell.is_object(); });
  if (!readable) {
    throw Error(ErrorKind::kData, "stopped.json must be an object of objects, one for each cell", path,
                "delete it; the next run writes it again");
  }
  return stopped;
}

}  // namespace kvc
