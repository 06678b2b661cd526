// One head without a model, and methods by name: what tests of single methods work on.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "harness/api/compaction_method.h"
#include "harness/model/formats/tensor_file.h"

namespace kvc {

inline at::Tensor normal_numbers(std::vector<int64_t> shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

// Queries of twice the usual spread, so that attention weights differ; one query head, whose last queries are the
// window.
inline HeadProblem random_head(int64_t T, int64_t n, int64_t d, std::uint64_t seed, bool bias = false,
                               at::ScalarType dtype = at::kFloat) {
  HeadProblem problem;
  problem.keys = normal_numbers({T, d}, seed).to(dtype);
  problem.values = normal_numbers({T, d}, seed + 1).to(dtype);
  problem.queries = (normal_numbers({n, d}, seed + 2) * 2).to(dtype);
  if (bias) problem.bias = normal_numbers({T}, seed + 3);
  problem.window_queries = [queries = problem.queries](int64_t n_tokens) {
    return queries.narrow(0, queries.size(0) - n_tokens, n_tokens);
  };
  problem.seed = seed;
  return problem;
}

// The numbers that the golden files of scripts/golden were made from: sums of four uniform ones.
inline at::Tensor synthetic(std::vector<int64_t> shape, std::uint64_t seed) {
  at::Tensor out = at::empty(shape, at::TensorOptions(at::kFloat));
  float* data = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < out.numel(); ++i) {
    double total = 0;
    for (int k = 0; k < 4; ++k) {
      seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
      total += static_cast<double>(seed >> 40) / 16777216.0 - 0.5;
    }
    data[i] = static_cast<float>(total * 1.75);
  }
  return out;
}

// A head of the demo model on real text; stored in bfloat16, computed with in float32.
inline HeadProblem captured_head(const std::string& name) {
  const TensorFile file = read_tensor_file(KVC_SOURCE_DIR "/harness/testing/golden/captured_heads.safetensors");
  HeadProblem head;
  head.keys = file.tensors.at(name + ".K").to(at::kFloat);
  head.values = file.tensors.at(name + ".V").to(at::kFloat);
  head.queries = file.tensors.at(name + ".Q").to(at::kFloat);
  return head;
}

// Keys in rows, as a test writes them down; values number the entries, queries as given.
inline HeadProblem written_head(const std::vector<std::vector<float>>& keys,
                                const std::vector<std::vector<float>>& queries = {}) {
  const auto matrix = [](const std::vector<std::vector<float>>& rows) {
    std::vector<at::Tensor> list;
    for (const std::vector<float>& row : rows) list.push_back(at::tensor(row));
    return at::stack(list);
  };
  HeadProblem problem;
  problem.keys = matrix(keys);
  problem.values =
      at::arange(problem.keys.size(0), at::TensorOptions(at::kFloat)).unsqueeze(1).expand_as(problem.keys).contiguous();
  if (!queries.empty()) problem.queries = matrix(queries);
  return problem;
}

// The per-head method of that name.
class NamedMethod {
 public:
  explicit NamedMethod(const std::string& name, const Json& options = Json::object())
      : made_(Registry<CompactionMethod>::instance().create(name, options)),
        method_(dynamic_cast<const PerHeadMethod*>(made_.get())) {
    if (method_ == nullptr) throw std::logic_error(name + " is no method of single heads");
  }
  const PerHeadMethod* operator->() const { return method_; }

  HeadFit fit(const HeadProblem& problem, int64_t target_len) const {
    return method_->fit(problem, {target_len}).front();
  }
  std::vector<int64_t> indices(const HeadProblem& problem, int64_t target_len) const {
    const at::Tensor kept = fit(problem, target_len).indices;
    return {kept.const_data_ptr<int64_t>(), kept.const_data_ptr<int64_t>() + kept.numel()};
  }

 private:
  std::unique_ptr<CompactionMethod> made_;
  const PerHeadMethod* method_;
};

}  // namespace kvc
