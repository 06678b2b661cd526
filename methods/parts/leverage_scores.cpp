#include "methods/parts/leverage_scores.h"

#include <ATen/ATen.h>

#include <cmath>
#include <tuple>

#include "harness/math/to_device.h"

namespace kvc {

at::Tensor leverage_scores(const at::Tensor& keys, int64_t sketch, std::uint64_t seed) {
  constexpr double kJitter = 0.01;
  at::Tensor x = keys.to(at::kDouble);
  x = x - x.mean(0, /*keepdim=*/true);
  if (sketch > 0) {
    const at::Generator generator = at::detail::createCPUGenerator(seed);
    const at::Tensor phi = at::randn({x.size(1), sketch}, generator, at::TensorOptions(at::kDouble));
    x = at::mm(x, to_device(phi.div_(std::sqrt(static_cast<double>(sketch))), x.device()));
  }
  at::Tensor gram = at::mm(x.t(), x);
  gram.diagonal().add_(kJitter);
  // Positive definite unless keys are NaN, and so are scores then; on a GPU the host does not wait to hear of it.
  const at::Tensor factor = std::get<0>(at::linalg_cholesky_ex(gram, /*upper=*/false, /*check_errors=*/gram.is_cpu()));
  const at::Tensor solved = at::cholesky_solve(x.t(), factor);
  return (x * solved.t()).sum(1).clamp_min(0).to(at::kFloat);
}

}  // namespace kvc
