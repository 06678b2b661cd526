// Keeps the keys that point where queries point, whatever they ask: along the direction that carries most of the
// queries' energy; values as they were, no bias. Godey, Devoto, Zhao, Scardapane, Minervini, de la Clergerie, Sagot,
// "Q-Filters: Leveraging QK Geometry for Efficient KV Cache Compression", arXiv:2503.02812.
//
// For each query head, u = first right singular vector of its queries (n / g, d), turned so that the mean query has a
// positive part along it. The filter of a KV head is the mean of its query heads' u, and
//   score_i = k_i u
// which up to a positive factor is the mean logit that the paper's theorem predicts.
//
// The paper's filters come from a calibration text and serve all documents: {method: q_filters, queries: {queries:
// calibration_text, file: FILE}}. By default they come from the model's own queries on this document (context_prefill).
// Checked against kvpress's QFilterPress (layer_golden_test.cpp).
//
// Difference: keys and queries are rotated ones, as
// those of the cache that the published filters are applied to. An old bias plays no part in the score.
#include <ATen/ATen.h>

#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class QFilters final : public ScoredKeys {
 public:
  using Options = NoOptions;
  explicit QFilters(const Options& /*options*/) {}

  std::string published_queries() const override { return "context_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    int64_t g = problem.request == nullptr ? 1 : problem.request->model.spec().group_size();
    if (problem.queries.size(0) % g != 0) g = 1;  // of a mix: rows do not tell whose they are
    const at::Tensor queries = problem.queries.to(at::kDouble).view({g, -1, problem.queries.size(1)});
    at::Tensor filter = at::zeros({problem.queries.size(1)}, queries.options());
    for (int64_t head = 0; head < g; ++head) {
      // Eigenvalues ascend: the last eigenvector of Q^T Q is the first right singular vector of Q.
      const auto [values, vectors] = at::linalg_eigh(at::mm(queries[head].t(), queries[head]));
      const at::Tensor direction = vectors.select(1, -1);
      const bool away = at::dot(queries[head].mean(0), direction).item<double>() < 0;
      filter.add_(direction, away ? -1.0 : 1.0);
    }
    return at::mv(problem.keys.to(at::kDouble), filter.div_(g)).to(at::kFloat);
  }
};

KVC_REGISTER_METHOD(QFilters, "q_filters", "arXiv:2503.02812");

}  // namespace
}  // namespace kvc
