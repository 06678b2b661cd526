#include "methods/parts/leverage_scores.h"

#include <ATen/ATen.h>

#include <cmath>

namespace kvc {

at::Tensor leverage_scores(const at::Tensor& keys, int64_t sketch, std::uint64_t seed) {
  constexpr double kJitter = 0.01;
  at::Tensor x = keys.to(at::kDouble);
  x = x - x.mean(0, /*keepdim=*/true);
  if (sketch > 0) {
    const at::Generator generator = at::detail::createCPUGenerator(seed);
    const at::Tensor phi = at::randn({x.size(1), sketch}, generator, at::TensorOptions(at::kDouble));
    x = at::mm(x, phi.div_(std::sqrt(static_cast<double>(sketch))).to(x.device()));
  }
  at::Tensor gram = at::mm(x.t(), x);
  gram.diagonal().add_(kJitter);
  const at::Tensor solved = at::cholesky_solve(x.t(), at::linalg_cholesky(gram));
  return (x * solved.t()).sum(1).clamp_min(0).to(at::kFloat);
}

}  // namespace kvc
