// The whole cache, untouched: the ceiling that every compaction is compared with.
#include "harness/api/compaction_method.h"
#include "harness/core/stopwatch.h"

namespace kvc {
namespace {

class FullCache final : public CompactionMethod {
 public:
  using Options = NoOptions;
  explicit FullCache(const Options& /*options*/) {}

  bool needs_target() const override { return false; }

  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    const Stopwatch clock;
    std::vector<Compaction> compactions;
    compactions.push_back(Compaction{request.cache.clone(), 0, 0, Json::object()});
    compactions.back().own_s = clock.seconds();
    return compactions;
  }
};

KVC_REGISTER_METHOD(FullCache, "full_cache", "the untouched cache (ceiling)");

}  // namespace
}  // namespace kvc
