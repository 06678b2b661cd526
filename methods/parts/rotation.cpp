#include "methods/parts/rotation.h"

#include <ATen/ATen.h>

#include <vector>

namespace kvc {

Turn turn_at(const DecoderSpec& spec, const at::Tensor& positions, const at::TensorOptions& options) {
  const std::vector<float> frequencies = rope_frequencies(spec).frequencies;
  const at::Tensor angles = at::outer(positions.to(at::kFloat), at::tensor(frequencies));
  return {angles.cos().to(options.device()), angles.sin().to(options.device())};
}

at::Tensor turned(const at::Tensor& x, const Turn& turn, double sign) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half);
  const at::Tensor sin = turn.sin * sign;
  return at::cat({a * turn.cos - b * sin, b * turn.cos + a * sin}, -1);
}

at::Tensor unrotated_keys(const HeadProblem& problem) {
  if (problem.request == nullptr) return {};
  const Context& context = problem.request->context;
  const int64_t source_len = problem.keys.size(0);
  if (source_len != context.article_len()) return {};
  const int64_t first = problem.request->compactable.prefix_len + context.first_position;
  const at::Tensor positions = at::arange(first, first + source_len, at::TensorOptions(at::kLong));
  const at::Tensor keys = problem.keys.to(at::kFloat);
  return turned(keys, turn_at(problem.request->model.spec(), positions, keys.options()), -1);
}

}  // namespace kvc
