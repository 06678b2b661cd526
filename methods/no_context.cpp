// The template without the article: the floor, what the model knows by itself. The article's tokens are deleted from
// the text and the rest is read anew, so the cache has its own positions.
#include <c10/core/InferenceMode.h>

#include "harness/api/compaction_method.h"
#include "harness/core/stopwatch.h"

namespace kvc {
namespace {

class NoContext final : public CompactionMethod {
 public:
  using Options = NoOptions;
  explicit NoContext(const Options& /*options*/) {}

  bool needs_queries() const override { return false; }
  bool needs_target() const override { return false; }
  bool compacts_cache() const override { return false; }

  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    const c10::InferenceMode inference;
    const Stopwatch clock;
    const Context& context = request.context;
    std::vector<int64_t> tokens(context.tokens.begin(), context.tokens.begin() + context.prefix_len);
    tokens.insert(tokens.end(), context.tokens.end() - context.suffix_len, context.tokens.end());
    std::vector<Compaction> compactions;
    compactions.push_back(Compaction{request.model.decoder().prefill(tokens), 0, 0, Json::object()});
    compactions.back().own_s = clock.seconds();
    return compactions;
  }
};

KVC_REGISTER_METHOD(NoContext, "no_context", "the template without the article (floor)");

}  // namespace
}  // namespace kvc
