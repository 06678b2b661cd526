// The template without the article: the floor, what the model knows by itself. The article's tokens are deleted from
// the text and the rest is read anew, so the cache has its own positions.
#include "methods/parts/text_method.h"

namespace kvc {
namespace {

class NoContext final : public TextMethod {
 public:
  using Options = NoOptions;
  explicit NoContext(const Options& /*options*/) {}

  bool needs_target() const override { return false; }

  Rewritings rewrite(const CompactionRequest& request, const std::vector<int64_t>& /*lengths*/) const override {
    Rewritings rewritings;
    rewritings.list.push_back({with_article(request.context, {})});
    return rewritings;
  }
};

KVC_REGISTER_METHOD(NoContext, "no_context", "the template without the article (floor)");

}  // namespace
}  // namespace kvc
