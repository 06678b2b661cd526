#include "methods/parts/output_norms.h"

#include <ATen/ATen.h>

#include <vector>

#include "harness/core/error.h"

namespace kvc {

at::Tensor output_norms(const HeadProblem& problem, double p, const std::string& method) {
  if (problem.request == nullptr) {
    throw Error(ErrorKind::kUsage, method + " needs the model's output projection, and there is no model", "method",
                "run it on a model's cache, with kvc compact or in a sweep");
  }
  const Decoder& decoder = problem.request->model.decoder();
  const DecoderSpec& spec = decoder.spec();
  const int64_t d = spec.head_dim, g = spec.group_size();
  const at::Tensor& projection = decoder.weights().layers[static_cast<size_t>(problem.layer)].attention_output;
  const at::Tensor values = problem.values.to(at::kFloat);
  std::vector<at::Tensor> norms;
  for (int64_t head = problem.kv_head * g; head < (problem.kv_head + 1) * g; ++head) {
    const at::Tensor part = projection.narrow(1, head * d, d).to(at::kFloat);  // (hidden, d)
    norms.push_back(at::linalg_vector_norm(at::mm(values, part.t()), p, at::IntArrayRef{1}));
  }
  return at::stack(norms);
}

}  // namespace kvc
