#include "harness/math/float_product.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

namespace kvc {

at::Tensor float_product(const at::Tensor& a, const at::Tensor& b) {
  const bool batched = a.dim() == 3;
  if (a.is_cuda() && a.scalar_type() == at::kBFloat16) {
    return batched ? at::bmm(a, b, at::kFloat) : at::mm(a, b, at::kFloat);
  }
  const at::Tensor wide_a = a.to(at::kFloat), wide_b = b.to(at::kFloat);
  return batched ? at::bmm(wide_a, wide_b) : at::mm(wide_a, wide_b);
}

void keep_products_exact() {
  at::Context& context = at::globalContext();
  context.setAllowBF16ReductionCuBLAS(false);
  context.setAllowFP16ReductionCuBLAS(false);
  context.setAllowTF32CuBLAS(false);
}

}  // namespace kvc
