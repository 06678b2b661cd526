// Keeps t entries drawn at random without replacement, for each head its own; values as they were, no bias. Every
// method should beat it.
//
// One seeded shuffle per head; a smaller target takes the first entries of the same shuffle.
#include <ATen/ATen.h>

#include "harness/api/compaction_method.h"

namespace kvc {
namespace {

class RandomKeys final : public PerHeadMethod {
 public:
  using Options = NoOptions;
  explicit RandomKeys(const Options& /*options*/) {}

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t /*largest_target_len*/) const override {
    const at::Generator generator = at::detail::createCPUGenerator(problem.seed);
    const at::Tensor order =
        at::randperm(problem.keys.size(0), generator, at::TensorOptions(at::kLong)).to(problem.keys.device());
    return [problem, order](int64_t target_len) { return keep(problem, order.narrow(0, 0, target_len)); };
  }
};

KVC_REGISTER_METHOD(RandomKeys, "random_keys", "a seeded random subset (control)");

}  // namespace
}  // namespace kvc
