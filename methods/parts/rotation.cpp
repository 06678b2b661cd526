#include "methods/parts/rotation.h"

#include <ATen/ATen.h>

#include <vector>

#include "harness/core/error.h"

namespace kvc {

Turn turn_at(const DecoderSpec& spec, const at::Tensor& positions, const at::TensorOptions& options) {
  const at::Tensor frequencies = at::tensor(rope_frequencies(spec).frequencies).to(options.device());
  const at::Tensor angles = at::outer(positions.to(options.device(), at::kFloat), frequencies);
  return {angles.cos(), angles.sin()};
}

at::Tensor turned(const at::Tensor& x, const Turn& turn, double sign) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half);
  const at::Tensor sin = turn.sin * sign;
  return at::cat({a * turn.cos - b * sin, b * turn.cos + a * sin}, -1);
}

at::Tensor unrotated_queries(const HeadProblem& problem, const std::string& method) {
  const auto fail = [&](const std::string& fact) {
    throw Error(ErrorKind::kUsage, method + " turns queries back to before their rotation: " + fact, "queries",
                "take context_prefill or another source that reads a text with a model");
  };
  if (problem.request == nullptr || problem.request->queries == nullptr) fail("there is no model");
  const at::Tensor positions = problem.request->queries->positions();
  if (!positions.defined()) fail("this source of queries knows no positions");
  if (positions.numel() != problem.queries.size(0)) fail("positions and queries differ in number");
  const DecoderSpec& spec = problem.request->model.spec();
  const int64_t g = spec.group_size();
  // Read from a text, every query head has the same tokens. In a mix of sources rows do not tell whose they are.
  const bool head_by_head =
      positions.numel() % g == 0 && positions.view({g, -1}).eq(positions.view({g, -1}).select(0, 0)).all().item<bool>();
  if (!head_by_head) fail("these queries are not grouped by query head (those of a mix are not)");
  const at::Tensor queries = problem.queries.to(at::kFloat).view({g, -1, problem.queries.size(1)});
  return turned(queries, turn_at(spec, positions.narrow(0, 0, queries.size(1)), queries.options()), -1);
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
