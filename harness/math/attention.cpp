// Attention pieces in plain ATen: they work on any device.
#include "harness/math/attention.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "harness/math/float_product.h"

namespace kvc {

at::Tensor attention_logits(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(queries.size(-1)));
  if (queries.is_cuda() && queries.scalar_type() == at::kBFloat16 && keys.scalar_type() == at::kBFloat16) {
    at::Tensor logits = float_product(queries, keys.t());
    logits.mul_(scale);
    return bias.defined() ? logits.add_(bias) : logits;
  }
  // bfloat16 products are exact in float32; a bfloat16 result would round logits to 8 bits, so the product is taken in
  // float32.
  const at::Tensor scaled = queries.to(at::kFloat).mul(scale);
  const at::Tensor keys_t = keys.to(at::kFloat).t();
  return bias.defined() ? at::addmm(bias, scaled, keys_t) : at::mm(scaled, keys_t);
}

PartialAttention merge(const PartialAttention& a, const PartialAttention& b) {
  constexpr double kNothing = -std::numeric_limits<double>::infinity();
  const at::Tensor log_sum_exp = at::logaddexp(a.log_sum_exp, b.log_sum_exp);
  // -inf - -inf is NaN: where both parts are empty, any finite shift makes both weights 0.
  const at::Tensor shift = log_sum_exp.masked_fill(log_sum_exp.eq(kNothing), 0.0);
  const at::Tensor weight_a = at::exp(a.log_sum_exp - shift).unsqueeze(-1);
  const at::Tensor weight_b = at::exp(b.log_sum_exp - shift).unsqueeze(-1);
  return {at::addcmul(a.output * weight_a, b.output, weight_b), log_sum_exp};
}

}  // namespace kvc
