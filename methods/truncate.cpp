// Keeps the first t entries as they are, no bias: the text cut off, but read whole (control). arXiv:2602.16284 lists it
// as a baseline; truncate_text cuts the text before it is read.
#include <ATen/ATen.h>

#include "harness/api/compaction_method.h"

namespace kvc {
namespace {

class Truncate final : public PerHeadMethod {
 public:
  using Options = NoOptions;
  explicit Truncate(const Options& /*options*/) {}

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    return [problem](int64_t target_len) {
      return keep(problem, at::arange(target_len, problem.keys.options().dtype(at::kLong)));
    };
  }
};

KVC_REGISTER_METHOD(Truncate, "truncate", "the first entries (control)");

}  // namespace
}  // namespace kvc
